"""Parse a mix from the short text that addresses hold; the page writes and reads the same.

    drums:100:-20,bass:80:0:m,vocals:64:0:s,master:90

Each entry is NAME:VOLUME:PAN[:FLAGS] with a volume of 0 to 100, a pan of -100 (left) to 100 (right)
and of the flags `m` (mute) and `s` (solo). A stem that is not named is at UNITY:0, which is 80:0.
static/js/mixer/mix.js reads and writes the same.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from separations.audio.mixing.gain_laws import FARTHEST, LOUDEST, UNITY, laws_key
from separations.errors.fault import Fault

MOST_CHARACTERS = 2000
MASTER = "master"
OF_THE_PLAYER = ("speed", "key")  # settings of the player, which leave the samples unchanged
STRIP = re.compile(r"(\d{1,3}):(-?\d{1,3})(?::([ms]{1,2}))?", re.ASCII)
VOLUME = re.compile(r"\d{1,3}", re.ASCII)


@dataclass(frozen=True)
class Strip:
    """How one stem is set."""

    name: str
    volume: int = UNITY
    pan: int = 0
    muted: bool = False
    soloed: bool = False

    @property
    def text(self) -> str:
        """The entry of this stem in the text of a mix."""
        flags = "m" * self.muted + "s" * self.soloed
        return f"{self.name}:{self.volume}:{self.pan}" + (f":{flags}" if flags else "")


@dataclass(frozen=True)
class MixSettings:
    """Every stem of a song as it is set, in the song's own order."""

    strips: tuple[Strip, ...]
    master: int = UNITY

    @property
    def audible(self) -> tuple[Strip, ...]:
        """The stems that sound: not muted, and if any is soloed, only soloed ones."""
        solo = any(strip.soloed for strip in self.strips)
        open_strips = (s for s in self.strips if not s.muted and (s.soloed or not solo))
        return tuple(s for s in open_strips if s.volume and self.master)

    @property
    def canonical_text(self) -> str:
        """The same text for all settings that sound the same, and another when a law changes."""
        entries = [f"{strip.name}:{strip.volume}:{strip.pan}" for strip in self.audible]
        if not entries:
            return ""
        laws = laws_key()
        return ",".join([*entries, f"{MASTER}:{self.master}", *([f"laws:{laws}"] if laws else [])])


def parse_mix(text: str, names: Sequence[str]) -> MixSettings:
    """The settings of the stems `names` that `text` describes.

    Raises:
        Fault: bad_option, if the text is malformed or names another stem.
    """
    if len(text) > MOST_CHARACTERS:
        raise _fault(names)
    strips = {name: Strip(name) for name in names}
    master = UNITY
    seen = set()
    for entry in text.split(",") if text else ():
        name, _, rest = entry.partition(":")
        if name in seen:
            raise _fault(names)
        seen.add(name)
        if name == MASTER:
            master = _volume(rest, names)
        elif name in strips:
            strips[name] = _strip(name, rest, names)
        elif name not in OF_THE_PLAYER:
            raise _fault(names)
    return MixSettings(tuple(strips.values()), master)


def _strip(name: str, text: str, names: Sequence[str]) -> Strip:
    match = STRIP.fullmatch(text)
    if match is None or abs(int(match[2])) > FARTHEST:
        raise _fault(names)
    flags = match[3] or ""
    return Strip(name, _volume(match[1], names), int(match[2]), "m" in flags, "s" in flags)


def _volume(text: str, names: Sequence[str]) -> int:
    if not VOLUME.fullmatch(text) or int(text) > LOUDEST:
        raise _fault(names)
    return int(text)


def _fault(names: Sequence[str]) -> Fault:
    strip = f"({'|'.join(names)}):0…{LOUDEST}:-{FARTHEST}…{FARTHEST}[:m|s|ms]"
    return Fault("bad_option", option="mix", allowed=f"{strip}, {MASTER}:0…{LOUDEST}")
