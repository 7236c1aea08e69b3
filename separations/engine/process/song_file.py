"""The decoded mixture as a temporary file: written once, read at random, in constant memory."""

import math
import mmap
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from separations.audio.info import CHANNELS
from separations.errors.fault import Fault


class SongFile:
    """A song of `frames` samples as interleaved float32 in the file at `path`.

    means: of the left and the right channel. mean, deviation: of the mono downmix, computed as
        torch's `mean()` and `std()`.
    """

    def __init__(
        self, path: Path, frames: int, means: tuple[float, float], deviation: float
    ) -> None:
        self.frames, self.means, self.deviation = frames, means, deviation
        self.mean = sum(means) / CHANNELS
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._samples = np.frombuffer(self._map, np.float32).reshape(frames, CHANNELS)

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Samples `start` to `stop` within the song; shape (2, stop - start)."""
        part = np.ascontiguousarray(self._samples[start:stop].T)
        # Else all pages that were read count as this process's memory.
        self._map.madvise(mmap.MADV_DONTNEED)
        return part


def write_song(
    blocks: Iterable[NDArray[np.float32]], path: Path, on_frames: Callable[[int], None]
) -> SongFile:
    """Write decoded `blocks` of shape (2, samples) to `path`, measuring them on the way.

    Args:
        on_frames: called with the number of samples written so far.

    Raises:
        Fault: too_short when there are none; not_finite.
    """
    frames = 0
    totals = np.zeros(CHANNELS)
    squares = 0.0
    with path.open("wb") as file:
        for block in blocks:
            mono = block.mean(axis=0, dtype=np.float64)
            if not np.isfinite(mono).all():
                raise Fault("not_finite")
            totals += block.sum(axis=1, dtype=np.float64)
            squares += float(np.square(mono).sum())
            frames += block.shape[1]
            file.write(np.ascontiguousarray(block.T).tobytes())
            on_frames(frames)
    if not frames:
        raise Fault("too_short")
    left, right = (float(total) / frames for total in totals)
    variance = max(0.0, squares - frames * ((left + right) / 2) ** 2) / max(1, frames - 1)
    return SongFile(path, frames, (left, right), math.sqrt(variance))
