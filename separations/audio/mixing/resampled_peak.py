"""The peak of a mix at another sample rate, where samples lie elsewhere and may be larger."""

from functools import lru_cache

import numpy as np

from separations.audio.mixing.mix import CELLS_TRIED, Mix, cell_bounds
from separations.audio.store.resampled import Resampled, frames_at
from separations.audio.store.stem_file import CELL_FRAMES

MOST_RISE = 2.0  # by which resampling was seen to raise a peak of music, and more: 6 dB


def peak_at_rate(mix: Mix, peak: float, start: int, stop: int, rate: int) -> float:
    """The largest sample of a part of `mix` at `rate` (Hz), at least its `peak` at 44.1 kHz.

    Only the CELLS_TRIED cells with the highest bounds are resampled to find it: all of them would
    take as long as the download. What is larger elsewhere, by a hair, clips in integer formats.

    Args:
        start, stop: the part, in samples at 44.1 kHz.
    """
    if rate == mix.rate or peak * MOST_RISE <= 1.0 or start >= stop:
        return peak
    return max(peak, _found(mix, start, stop, rate))


@lru_cache(maxsize=256)
def _found(mix: Mix, start: int, stop: int, rate: int) -> float:
    highest = cell_bounds(mix, start, stop).max(axis=1)
    found, resampled = 0.0, Resampled(mix, rate)
    for cell in np.argsort(-highest, kind="stable")[:CELLS_TRIED]:
        begin = max(start, int(cell) * CELL_FRAMES)
        end = min(stop, (int(cell) + 1) * CELL_FRAMES)
        for block in resampled.read(frames_at(begin, rate), frames_at(end, rate)):
            found = max(found, float(np.abs(block).max(initial=0.0)))
    return found
