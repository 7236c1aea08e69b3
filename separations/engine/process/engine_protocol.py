"""Messages between the site and an engine process: one JSON object a line.

This module does not import torch.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from separations.audio.level_limits import check_stem
from separations.engine.options import Options
from separations.errors.fault import Fault

# Raise it when the same song and options give other stems, so that old results are not reused.
OUTPUT_VERSION = 4

BEYOND_ALL = 1e18  # more than any loudness, share, time or number of bytes

Stage = Literal["start", "decode", "separate", "encode"]


@dataclass(frozen=True)
class Request:
    """Separate the file `source` into `staging` (an empty folder).

    engine_dir: for choices of engines and compiled networks on this machine.
    job: its id, for the log.
    keep_free: bytes of reserve on the disk of `staging`.
    load_only: load the networks for `options` now, for the songs to come; there is no song.
    decoder_dir: the folder of the decoder slots; "" without a limit on decoders.
    decoders: how many engines on this machine may decode at once.
    """

    source: str
    staging: str
    model_dir: str
    engine_dir: str
    options: Options
    frames: int  # expected at 44.1 kHz, for the progress of decoding
    job: str = ""
    keep_free: int = 0
    decoder_dir: str = ""
    decoders: int = 1
    load_only: bool = False


@dataclass(frozen=True)
class Progress:
    """The share of a job's work that is done (0 to 1), and the remaining seconds."""

    stage: Stage
    fraction: float
    remaining: float | None


@dataclass(frozen=True)
class StemFile:
    """peak: 1 is full scale. loudness: LUFS, None for silence."""

    name: str
    peak: float
    loudness: float | None


@dataclass(frozen=True)
class Done:
    """The stems lie in the staging folder, as `separations.audio.store.stem_file` stores them.

    mixture: the song itself, stored beside the stems in the same form.
    memory: peak of the process, in bytes. engine: what ran the model, in words.
    """

    frames: int
    stems: list[StemFile]
    mixture: StemFile
    memory: int
    engine: str


@dataclass(frozen=True)
class Loaded:
    """The networks of a request without a song are loaded. engine: what runs them, in words."""

    engine: str


@dataclass(frozen=True)
class Failed:
    """A fault by its code. trace: the traceback, for the operator's log."""

    code: str
    params: dict[str, Any]
    trace: str


@dataclass(frozen=True)
class Ready:
    """What runs networks is loaded, and works: sent before the networks of each request are loaded,
    and in answer to PING."""


PING = "ping"  # a request that only asks whether the engine answers, with torch loaded
Message = Progress | Done | Loaded | Failed | Ready
KINDS: dict[str, type[Message]] = {
    kind.__name__: kind for kind in (Progress, Done, Loaded, Failed, Ready)
}


def write_message(message: Message) -> str:
    """Raises ValueError for NaN and infinity, which JSON does not have."""
    return json.dumps({"kind": type(message).__name__, **asdict(message)}, allow_nan=False)


def read_message(line: str | bytes) -> Message:
    """Parse an engine's message and check its numbers, which go into rows, JSON and pages.

    Raises:
        Fault: absurd_stem for an impossible level; engine_error if it is no message otherwise.
    """
    try:
        message = _message(json.loads(line))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Fault("engine_error", reason="no answer") from error
    match message:
        case Done():
            for stem in (*message.stems, message.mixture):
                check_stem(stem.name, stem.peak)
                if not _is_finite(stem.loudness):
                    raise Fault("absurd_stem", stem=stem.name)
        case Progress() if not (_is_finite(message.fraction) and _is_finite(message.remaining)):
            raise Fault("engine_error", reason="no number")
        case Failed() if not all(map(_is_finite, message.params.values())):
            raise Fault("engine_error", reason="no number")
    return message


def _message(fields: dict[str, Any]) -> Message:
    kind = KINDS[fields.pop("kind")]
    if kind is Done:
        fields["stems"] = [StemFile(**stem) for stem in fields["stems"]]
        fields["mixture"] = StemFile(**fields["mixture"])
    return kind(**fields)


def _is_finite(value: object) -> bool:
    """Whether `value` is a finite number, or no number at all."""
    return not isinstance(value, int | float) or abs(value) < BEYOND_ALL


def write_request(request: Request) -> str:
    return json.dumps(asdict(request), allow_nan=False)


def read_request(line: str) -> Request:
    fields = json.loads(line)
    return Request(**{**fields, "options": Options(**fields["options"])})
