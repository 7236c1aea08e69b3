"""What travels between the site and an engine process: one JSON object a line. No torch here."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from separations.engine.options import Options

# Raised when the stems of the same song and options come out different: old results are not reused.
OUTPUT_VERSION = 3

Stage = Literal["start", "decode", "separate", "encode"]


@dataclass(frozen=True)
class Request:
    """Separate the file `source` into `staging` (an empty folder).

    engine_dir: where what is known and compiled of engines on this machine is kept.
    job: its id, for the log.
    """

    source: str
    staging: str
    model_dir: str
    engine_dir: str
    options: Options
    frames: int  # expected at 44.1 kHz, for the progress of decoding
    job: str = ""


@dataclass(frozen=True)
class Progress:
    """`fraction` of the job's whole work that is done (0 to 1), and the seconds that are left."""

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
    """The stems lie in the staging folder, as `separations.audio.stems` stores them.

    mixture: the song itself, stored beside them like one of them.
    memory: the most bytes that the process held meanwhile. engine: what ran the model, in words.
    """

    frames: int
    stems: list[StemFile]
    mixture: StemFile
    memory: int
    engine: str


@dataclass(frozen=True)
class Failed:
    """trace: where it happened, for the operator."""

    code: str
    params: dict[str, Any]
    trace: str


Message = Progress | Done | Failed
KINDS: dict[str, type[Progress] | type[Done] | type[Failed]] = {
    kind.__name__: kind for kind in (Progress, Done, Failed)
}


def write_message(message: Message) -> str:
    return json.dumps({"kind": type(message).__name__, **asdict(message)})


def read_message(line: str) -> Message:
    fields = json.loads(line)
    kind = KINDS[fields.pop("kind")]
    if kind is Done:
        fields["stems"] = [StemFile(**stem) for stem in fields["stems"]]
        fields["mixture"] = StemFile(**fields["mixture"])
    return kind(**fields)


def write_request(request: Request) -> str:
    return json.dumps(asdict(request))


def read_request(line: str) -> Request:
    fields = json.loads(line)
    return Request(**{**fields, "options": Options(**fields["options"])})
