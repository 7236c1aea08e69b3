"""The fader law and the pan law: what positions of a mixer's controls multiply samples with.

The pages have the fader law too (static/js/mixer/fader.js); a test compares the two at every
position. Browsers have the pan law built in.
"""

import hashlib
import math
from collections.abc import Callable
from functools import cache

UNITY = 80  # the fader's position that leaves a level as it is
LOUDEST = 100
FARTHEST = 100  # pan: -FARTHEST is left, FARTHEST is right
# The laws of encodings whose names do not mention them. It stays as it is when a law changes.
UNNAMED_LAWS = "c599c681"


def gain_of(volume: int) -> float:
    """The gain of a fader at `volume`: a cubic law, which is close to perceived loudness."""
    return (volume / UNITY) ** 3


def pan_gains(pan: int) -> tuple[float, float]:
    """How much of the far channel stays there, and how much of it moves over to the near one.

    The near channel, to which `pan` points, stays as it is. This is the equal-power law for stereo
    of the Web Audio API's StereoPannerNode (W3C Web Audio API 1.1, 1.29.3).
    """
    angle = (1 - abs(pan) / FARTHEST) * math.pi / 2
    return math.sin(angle), math.cos(angle) if pan else 0.0


def laws_key() -> str:
    """What keys of encoded mixes mention, so that a changed law makes new encodings.

    "" for UNNAMED_LAWS, the laws of the first encodings, whose names stay valid.
    """
    key = _key(gain_of, pan_gains)
    return "" if key == UNNAMED_LAWS else key


@cache
def _key(fader: Callable[[int], float], pan: Callable[[int], tuple[float, float]]) -> str:
    """A hash of both laws at every position, rounded: the last bits depend on the machine."""
    gains = [fader(volume) for volume in range(LOUDEST + 1)]
    for position in range(-FARTHEST, FARTHEST + 1):
        gains += pan(position)
    table = " ".join(f"{gain:.9f}" for gain in gains)
    return hashlib.sha256(table.encode()).hexdigest()[:8]
