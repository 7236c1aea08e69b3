"""The options of a separation: Demucs' Separator options and the choice of stems.

Each is declared once, as a field of `Options`: its type, default and bounds, its text, who sets it,
and what depends on it. From that follow the API's form, the flags of `manage.py separate`, the
messages to the engine process, the site's own options (settings of the same names in capitals) and
the key of a result.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from separations.engine.weights.store import ModelInfo
from separations.errors.fault import Fault

ALL_STEMS = "all"
MIXTURE = "mixture"  # the song itself, where it stands beside its stems
AUTO = "auto"


@dataclass(frozen=True)
class Note:
    """How an option was changed to fit the model, for the user."""

    code: str
    params: dict[str, Any]


@dataclass(frozen=True)
class Declared:
    """What is declared of an option beside its name, type and default.

    about: in a sentence, for the API's description and the command line; of a switch, what happens
        when it is off.
    lowest, highest: the bounds of a number. choices: all that a text may be, any if empty.
    most_characters: of a text in the API's form.
    by_operator: the site's settings choose it, not the sender of a song.
    changes_samples: the stems' samples depend on it, so it is part of a result's key.
    changes_network: a loaded network depends on it.
    """

    about: str
    lowest: float | None = None
    highest: float | None = None
    choices: tuple[str, ...] = ()
    most_characters: int | None = None
    by_operator: bool = False
    changes_samples: bool = True
    changes_network: bool = False

    def check(self, name: str, value: Any) -> None:
        """Raises Fault (bad_option) with what the value may be, unless it is that."""
        if self.choices and value not in self.choices:
            raise Fault("bad_option", option=name, allowed=", ".join(self.choices))
        if self.lowest is None or self.highest is None or value is None:
            return
        if not (math.isfinite(value) and self.lowest <= value <= self.highest):
            allowed = f"{self.lowest:g}–{self.highest:g}"
            raise Fault("bad_option", option=name, allowed=allowed)


def option(default: Any, about: str, **declared: Any) -> Any:
    """A field of `Options`: see `Declared`."""
    return field(default=default, metadata={"declared": Declared(about, **declared)})


@dataclass(frozen=True)
class Options:
    """How to separate. Defaults are Demucs' own but for `shifts`, whose single random shift costs
    determinism and buys nothing.

    With a segment of None a chunk has the model's own length. Without shifts there is one unmoved
    pass, else passes over a song moved by a seeded 0–0.5 s. Without `split` a song is separated in
    one piece, where the model can. With 0 jobs one chunk follows the other; 0 threads are the CPUs
    that this process may use. `engine` and `precision` are what runs the model, and its number
    format; "auto" is the fastest that is good enough here (see `separations.engine.engine_choice`).
    """

    model: str = option(
        "htdemucs",
        "A model that is installed.",
        most_characters=100,
        changes_samples=False,  # as a result's key holds the digest of its weights
        changes_network=True,
    )
    stems: str = option(
        ALL_STEMS,
        "`all`, or one stem to set against the rest of the song.",
        most_characters=40,
    )
    rest: Literal["mixture", "sum"] = option(
        "mixture",
        "How that rest is made: the mixture minus the stem, or the other stems' sum.",
        choices=("mixture", "sum"),
    )
    segment: float | None = option(
        None,
        "Seconds of a chunk; the model's own by default.",
        lowest=1,
        highest=600,
        changes_network=True,
    )
    shifts: int = option(
        0,
        "Passes over a song moved by up to half a second, averaged.",
        lowest=0,
        highest=10,
    )
    overlap: float = option(
        0.25,
        "Share of a chunk that its neighbour covers too.",
        lowest=0,
        highest=0.95,
    )
    split: bool = option(True, "the song in one piece, where the model can.")
    jobs: int = option(
        0,
        "Chunks worked on side by side; 0 for one after the other.",
        lowest=0,
        highest=8,
        by_operator=True,
        changes_samples=False,
        changes_network=True,
    )
    threads: int = option(
        0,
        "Threads that work on a chunk; 0 for the CPUs there are.",
        lowest=0,
        highest=1024,
        by_operator=True,
        changes_samples=False,
        changes_network=True,
    )
    device: str = option(
        "cpu",
        "What the model runs on.",
        choices=("cpu", "cuda"),
        by_operator=True,
        changes_samples=False,
        changes_network=True,
    )
    engine: str = option(
        AUTO,
        "What runs the model; `auto` for the fastest that is good enough here.",
        choices=(AUTO, "torch", "openvino"),
        by_operator=True,
        changes_network=True,
    )
    precision: str = option(
        AUTO,
        "Number format; `auto` for the fastest that is good enough here.",
        choices=(AUTO, "float32", "bfloat16"),
        by_operator=True,
        changes_network=True,
    )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def that_change_samples(self) -> dict[str, Any]:
        """The options on which the stems' samples depend, for the key of a result."""
        return {
            name: value for name, value in asdict(self).items() if DECLARED[name].changes_samples
        }

    def of_networks(self) -> "Options":
        """The same for all songs that can run on the same loaded networks."""
        passing = {n: default_of(n) for n, each in DECLARED.items() if not each.changes_network}
        return replace(self, **passing)


DECLARED: Mapping[str, Declared] = {
    each.name: each.metadata["declared"] for each in fields(Options)
}
_DEFAULTS = {each.name: each.default for each in fields(Options)}
BY_SENDER = tuple(name for name, each in DECLARED.items() if not each.by_operator)
BY_OPERATOR = tuple(name for name, each in DECLARED.items() if each.by_operator)
_HINTS = get_type_hints(Options)


def default_of(name: str) -> Any:
    return _DEFAULTS[name]


def hint_of(name: str) -> Any:
    """The type hint of an option."""
    return _HINTS[name]


def plain_hint_of(name: str) -> Any:
    """The same, but str for a text of which only some are allowed."""
    hint = hint_of(name)
    return str if get_origin(hint) is Literal else hint


def kind_of(name: str) -> type:
    """The type of an option's values, None left aside: str, int, float or bool."""
    hint = plain_hint_of(name)
    (kind,) = (each for each in get_args(hint) or (hint,) if each is not NoneType)
    found: type = kind
    return found


def passes(options: Options, model: ModelInfo) -> float:
    """How many times the song is processed: 1 for one pass at Demucs' own overlap, a quarter.

    A segment shorter than a transformer's own is padded to that: the same work for less of a song.
    """
    longest = model.longest_segment
    padding = longest / options.segment if longest and options.segment else 1.0
    overlapping = (1 - 0.25) / (1 - options.overlap)
    return max(1, options.shifts) * max(1.0, overlapping) * max(1.0, padding)


def needed_sources(info: ModelInfo, options: Options) -> list[int]:
    """Columns of the sources from which the chosen stems are made.

    Raises:
        Fault: no_such_stem.
    """
    if options.stems not in (ALL_STEMS, *info.sources):
        raise Fault("no_such_stem", stem=options.stems, stems=", ".join(info.sources))
    if options.stems == ALL_STEMS or options.rest == "sum":
        return list(range(len(info.sources)))
    return [info.sources.index(options.stems)]


def needed_models(info: ModelInfo, options: Options) -> list[int]:
    """The models of the bag with a weight in any needed source; others do not run."""
    needed = needed_sources(info, options)
    return [
        model
        for model in range(len(info.weights))
        if any(info.weights[model][source] for source in needed)
    ]


def work(options: Options, model: ModelInfo) -> float:
    """The cost of a second of the song: 1 for one network and one pass."""
    return passes(options, model) * len(needed_models(model, options))


def rest_name(stem: str) -> str:
    """The name of everything but `stem`."""
    return "instrumental" if stem == "vocals" else f"no_{stem}"


def stem_names(options: Options, model: ModelInfo) -> list[str]:
    """The names of the stems of a separation, in order."""
    if options.stems == ALL_STEMS:
        return list(model.sources)
    return [options.stems, rest_name(options.stems)]


def settle(options: Options, model: ModelInfo) -> tuple[Options, list[Note]]:
    """Check the options against their bounds and the model, and adapt those it cannot meet.

    Returns:
        The options as they will be used, and notes for the user on what was changed.

    Raises:
        Fault: bad_option (with the option's name and what it may be), or no_such_stem.
    """
    for name, declared in DECLARED.items():
        declared.check(name, getattr(options, name))
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
