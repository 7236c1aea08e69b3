"""What a separation can be asked for: Demucs' Separator options and the choice of stems."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from separations.engine.store import ModelInfo
from separations.faults import Fault

ALL_STEMS = "all"
MIXTURE = "mixture"  # the song itself, where it stands beside its stems
AUTO = "auto"
ENGINES = (AUTO, "torch", "openvino")
PRECISIONS = (AUTO, "float32", "bfloat16")
MOST_SHIFTS = 10
MOST_OVERLAP = 0.95
MOST_JOBS = 8
DEVICES = ("cpu", "cuda")
SHORTEST_SEGMENT = 1.0  # seconds

Rest = Literal["mixture", "sum"]


@dataclass(frozen=True)
class Note:
    """Something the user is told about how the options were taken."""

    code: str
    params: dict[str, Any]


@dataclass(frozen=True)
class Options:
    """How to separate. Defaults are Demucs' own but for `shifts`, whose single random shift costs
    determinism and buys nothing.

    stems: "all", or one stem to set against the rest of the song.
    rest: how that rest is made, "mixture" minus the stem or the "sum" of the other stems.
    segment: seconds a chunk, None for the model's own.
    shifts: passes over a song moved by a seeded 0–0.5 s, averaged; 0 for one unmoved pass.
    overlap: share of a chunk that its neighbour covers too.
    split: False to take the song in one piece, where the model can.
    jobs: chunks worked on side by side, 0 for one after the other.
    threads: 0 for the CPUs this process may use.
    engine, precision: what runs the model, in which number format; "auto" for the fastest that is
        good enough on the machine at hand (see `separations.engine.choice`).
    """

    model: str = "htdemucs"
    stems: str = ALL_STEMS
    rest: Rest = "mixture"
    segment: float | None = None
    shifts: int = 0
    overlap: float = 0.25
    split: bool = True
    jobs: int = 0
    threads: int = 0
    device: str = "cpu"
    engine: str = AUTO
    precision: str = AUTO

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def that_change_samples(self) -> dict[str, Any]:
        """The options on which the stems' samples depend, for the key of a result."""
        machine = {"model", "jobs", "threads", "device"}
        return {name: value for name, value in asdict(self).items() if name not in machine}


def passes(options: Options, model: ModelInfo) -> float:
    """How often the song is gone over: 1 for one pass at Demucs' own overlap, a quarter.

    A segment shorter than a transformer's own is padded to that: the same work for less of a song.
    """
    longest = model.longest_segment
    padding = longest / options.segment if longest and options.segment else 1.0
    overlapping = (1 - 0.25) / (1 - options.overlap)
    return max(1, options.shifts) * max(1.0, overlapping) * max(1.0, padding)


def needed_sources(info: ModelInfo, options: Options) -> list[int]:
    """Columns of the sources that the chosen stems are made of.

    Raises:
        Fault: no_such_stem.
    """
    if options.stems not in (ALL_STEMS, *info.sources):
        raise Fault("no_such_stem", stem=options.stems, stems=", ".join(info.sources))
    if options.stems == ALL_STEMS or options.rest == "sum":
        return list(range(len(info.sources)))
    return [info.sources.index(options.stems)]


def needed_models(info: ModelInfo, options: Options) -> list[int]:
    """The models of the bag that have a say in any needed source; others do not run."""
    needed = needed_sources(info, options)
    return [
        model
        for model in range(len(info.weights))
        if any(info.weights[model][source] for source in needed)
    ]


def work(options: Options, model: ModelInfo) -> float:
    """What a second of the song costs: 1 for a network that goes over it once."""
    return passes(options, model) * len(needed_models(model, options))


def rest_name(stem: str) -> str:
    """The name of everything but `stem`."""
    return "instrumental" if stem == "vocals" else f"no_{stem}"


def stem_names(options: Options, model: ModelInfo) -> list[str]:
    """The names of the stems that a separation gives, in order."""
    if options.stems == ALL_STEMS:
        return list(model.sources)
    return [options.stems, rest_name(options.stems)]


def settle(options: Options, model: ModelInfo) -> tuple[Options, list[Note]]:
    """Check the options against what is possible; settle what has one sensible answer.

    Returns:
        The options as they will be used, and what the user should be told about them.

    Raises:
        Fault: bad_option (with the option's name and what it may be), or no_such_stem.
    """
    _within("shifts", options.shifts, 0, MOST_SHIFTS)
    _within("overlap", options.overlap, 0.0, MOST_OVERLAP)
    _within("jobs", options.jobs, 0, MOST_JOBS)
    _within("threads", options.threads, 0, 1024)
    if options.segment is not None:
        _within("segment", options.segment, SHORTEST_SEGMENT, 600.0)
    _among("device", options.device, DEVICES)
    _among("engine", options.engine, ENGINES)
    _among("precision", options.precision, PRECISIONS)
    _among("rest", options.rest, ("mixture", "sum"))
    needed_sources(model, options)
    if options.stems == ALL_STEMS:
        options = replace(options, rest="mixture")  # unused: one result, one key
    notes = []
    longest = model.longest_segment
    if longest is not None:
        if options.segment is not None and options.segment > longest:
            notes.append(Note("segment_clamped", {"asked": options.segment, "used": longest}))
            options = replace(options, segment=None)
        if not options.split:
            notes.append(Note("split_needed", {"model": model.name, "used": longest}))
            options = replace(options, split=True)
    if not options.split:
        options = replace(options, segment=None, overlap=0.0)
    return options, notes


def _within(name: str, value: float, lowest: float, highest: float) -> None:
    if not (math.isfinite(value) and lowest <= value <= highest):
        raise Fault("bad_option", option=name, allowed=f"{lowest:g}–{highest:g}")


def _among(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise Fault("bad_option", option=name, allowed=", ".join(allowed))
