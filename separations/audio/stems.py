"""The stem store on disk: one 24-bit FLAC a stem, scaled cell by cell so that no sample is lost.

A stem is an estimate: it may peak above full scale, or be so quiet that 24 bits below full scale
say little of it. So each cell of a second and a half is stored times a power of two of its own,
which is exact and is undone when it is read. NAME.flac holds the samples, NAME.exponents one signed
byte a cell.
"""

import errno
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from separations.audio.info import CHANNELS, SAMPLE_RATE

CELL_FRAMES = 1 << 16
FULL_BYTES = 1 << 20
HEADROOM_EXPONENT = -2  # the usual cell: steps of 2^-21, far below what can be heard
QUIET_BITS = 18  # a quiet cell keeps at least this many bits below its peak…
FINEST_EXPONENT = 6  # …down to steps of 2^-29, where nothing is left to keep


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """libsndfile's complaints as what they are: a file that cannot be written or read."""
    try:
        yield
    except soundfile.LibsndfileError as error:
        # It does not say why; a full disk is worth telling from the rest.
        full = shutil.disk_usage(path.parent).free < FULL_BYTES
        code = errno.ENOSPC if full else errno.EIO
        raise OSError(code, os.strerror(code) if full else str(error)) from error


def sync(path: Path) -> None:
    """Have the system write a file or a folder to the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class StemWriter:
    """Writes one stem as blocks arrive. Complete only when `finish` has returned."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with disk_errors(self._path):
            self._file = soundfile.SoundFile(
                path, "w", SAMPLE_RATE, CHANNELS, subtype="PCM_24", format="FLAC"
            )
        self._held = np.zeros((0, CHANNELS), np.float32)
        self._exponents: list[int] = []
        self._frames = 0
        self.peak = 0.0

    def write(self, block: NDArray[np.float32]) -> None:
        """Append `block` of shape (2, samples), full scale ±1."""
        self._held = np.concatenate((self._held, block.T))
        while len(self._held) >= CELL_FRAMES:
            self._write_cell(self._held[:CELL_FRAMES])
            self._held = self._held[CELL_FRAMES:]

    def finish(self) -> None:
        """Write what is left and the exponents, durably, and see that all of it is there.

        Raises:
            OSError: it is not.
        """
        if len(self._held):
            self._write_cell(self._held)
        self.close()
        exponents_of(self._path).write_bytes(np.array(self._exponents, np.int8).tobytes())
        for path in (self._path, exponents_of(self._path)):
            sync(path)
        # libsndfile keeps quiet about what it cannot write while it closes a file: its last piece.
        last = max(0, self._frames - CELL_FRAMES)
        if sum(map(len, read_stem(self._path, last))) != self._frames - last:
            raise OSError(errno.EIO, f"{self._path.name} is cut off")

    def close(self) -> None:
        """Let go of the file, whatever is in it."""
        self._file.close()

    def _write_cell(self, samples: NDArray[np.float32]) -> None:
        peak = float(np.abs(samples).max())
        exponent = _exponent(peak)
        with disk_errors(self._path):
            self._file.write(np.ldexp(samples, exponent))
        self._exponents.append(exponent)
        self._frames += len(samples)
        self.peak = max(self.peak, peak)


def _exponent(peak: float) -> int:
    """The power of two that a cell of this peak is multiplied with."""
    if peak == 0.0:
        return HEADROOM_EXPONENT
    _mantissa, above = math.frexp(peak)  # peak < 2^above
    wanted = max(HEADROOM_EXPONENT, QUIET_BITS - 23 - above)
    return max(-128, min(wanted, FINEST_EXPONENT, -above))


def exponents_of(path: Path) -> Path:
    """Where the exponents of the stem at `path` lie."""
    return path.with_suffix(".exponents")


def read_stem(path: Path, start: int = 0, stop: int | None = None) -> Iterator[NDArray[np.float32]]:
    """The stem's samples from `start` up to `stop`, in blocks of shape (samples, 2)."""
    exponents = np.frombuffer(exponents_of(path).read_bytes(), np.int8)
    with disk_errors(path), soundfile.SoundFile(path) as file:
        file.seek(start)
        stop = file.frames if stop is None else min(stop, file.frames)
        while start < stop:
            cell = start // CELL_FRAMES
            frames = min(stop, (cell + 1) * CELL_FRAMES) - start
            block = file.read(frames, dtype="float32", always_2d=True)
            start += frames
            yield np.ldexp(block, -int(exponents[cell]))
