"""The stem store on disk: one 24-bit FLAC a stem, all scaled by one gain so that nothing clips.

A stem may peak above full scale (it is an estimate, and loud masters leave no room), and how far is
not known until the song is finished. So the store keeps 12 dB of head-room, and readers undo it.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from separations.audio.info import CHANNELS, SAMPLE_RATE

HEADROOM = 4.0  # 12 dB; leaves 22 of the 24 bits
READ_FRAMES = 1 << 16


def store_gain(mixture_peak: float) -> float:
    """The gain the whole track is stored with, from the peak of the mixture (1 = full scale)."""
    return 1.0 / (HEADROOM * max(1.0, mixture_peak))


class StemWriter:
    """Writes one stem as blocks arrive. Not to be closed before the last of them."""

    def __init__(self, path: Path, gain: float) -> None:
        self._file = soundfile.SoundFile(
            path, "w", SAMPLE_RATE, CHANNELS, subtype="PCM_24", format="FLAC"
        )
        self._gain = np.float32(gain)
        self.peak = 0.0
        self.frames = 0

    def write(self, block: NDArray[np.float32]) -> None:
        """Append `block` of shape (2, samples), full scale ±1."""
        self.peak = max(self.peak, float(np.abs(block).max(initial=0.0)))
        self.frames += block.shape[1]
        self._file.write(block.T * self._gain)

    def close(self) -> None:
        self._file.close()


def read_stem(
    path: Path, gain: float, start: int = 0, stop: int | None = None
) -> Iterator[NDArray[np.float32]]:
    """Blocks of shape (samples, 2) from sample `start` up to `stop`, times `gain`."""
    with soundfile.SoundFile(path) as file:
        file.seek(start)
        left = (file.frames if stop is None else stop) - start
        while left > 0:
            block = file.read(min(left, READ_FRAMES), dtype="float32", always_2d=True)
            if not len(block):
                return
            left -= len(block)
            yield block * np.float32(gain)
