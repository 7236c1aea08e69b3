"""Limits on the levels of songs and stems, checked before anything is computed from them.

Some programs write float files on the scale of 16- or 32-bit integers, up to 2^31 times full scale.
Those are separated like others. Far beyond that, squares and sums overflow.
"""

import math

import numpy as np
from numpy.typing import NDArray

from separations.errors.fault import Fault

HIGHEST_LEVEL = 2.0**32  # of a sample in a song; 1 is full scale
# Surround folded down to stereo (BS.775) adds up at most 3.2 channels' levels.
FOLDED = 4.0
# Of a stem or the stored song: models overshoot and so do resamplers, none of them by this much.
HIGHEST_PEAK = 2.0**40
# FFmpeg's loudness meter counts nothing above +10 LUFS. A signal with this peak stays below: two
# channels add 3 dB, the weighting up to 4.
HIGHEST_METERED = 1.5


def peak_of(samples: NDArray[np.float32]) -> float:
    """The largest magnitude, NaN if any sample is; 0 of no samples."""
    return float(max(samples.max(), -samples.min())) if samples.size else 0.0


def check_song(samples: NDArray[np.float32], most: float, *, from_double: bool = False) -> None:
    """Check that samples of a song are numbers within ±`most`.

    Args:
        from_double: they were float64, whose largest values are infinite as float32.

    Raises:
        Fault: not_finite or too_loud.
    """
    peak = peak_of(samples)
    if math.isnan(peak) or (math.isinf(peak) and not from_double):
        raise Fault("not_finite")
    if peak > most:
        raise Fault("too_loud", decibels=round(20 * math.log10(HIGHEST_LEVEL)))


def is_level(peak: float) -> bool:
    """Whether a stem can peak at this."""
    return 0.0 <= peak <= HIGHEST_PEAK  # false of NaN


def check_stem(name: str, peak: float) -> None:
    """Raises Fault (absurd_stem) if no stem can peak at this: the model failed."""
    if not is_level(peak):
        raise Fault("absurd_stem", stem=name)
