"""Read and write stored stems: one 24-bit FLAC file a stem, scaled cell by cell without loss.

A stem is an estimate: it may peak above full scale, or be so quiet that 24 bits below full scale
hold little of it. So each cell of a second and a half is scaled by a power of two of its own, which
is exact and is undone on reading. NAME.flac holds the samples, NAME.exponents one signed byte a
cell, NAME.peaks one byte for each PEAK_FRAMES samples, to draw them.

A stem can be read while it is written: as many cells as there are exponents.
"""

import errno
import io
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from separations.audio.info import CHANNELS, SAMPLE_RATE
from separations.audio.level_limits import HIGHEST_METERED, check_stem

CELL_FRAMES = 1 << 16
PEAK_FRAMES = 1 << 11
PEAK_FULL = 4.0  # the amplitude of the largest byte: 12 dB above full scale
FULL_BYTES = 1 << 20
FLAC_HEAD = 26  # bytes up to the end of the number of samples
HEADROOM_EXPONENT = -2  # the usual cell: steps of 2^-21, far below what can be heard
QUIET_BITS = 18  # a quiet cell keeps at least this many bits below its peak…
FINEST_EXPONENT = 6  # …down to steps of 2^-29, below which float32 has little to store


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn libsndfile's errors into OSError: a file cannot be written or read."""
    try:
        yield
    except soundfile.LibsndfileError as error:
        # libsndfile does not report the cause; a full disk needs a message of its own.
        full = shutil.disk_usage(path.parent).free < FULL_BYTES
        code = errno.ENOSPC if full else errno.EIO
        raise OSError(code, os.strerror(code) if full else str(error)) from error


def sync(path: Path) -> None:
    """Flush a file or a folder from the system's cache to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class StemWriter:
    """Writes one stem as blocks arrive. Complete only when `finish` has returned.

    Args:
        check: called before each cell is written; may raise.

    Raises Fault (absurd_stem) if samples are NaN, infinite, or close to it.

    peak: of all cells written so far, 1 is full scale. loudness: in LUFS, None for silence.
    """

    def __init__(self, path: Path, check: Callable[[], None] = lambda: None) -> None:
        from separations.audio.store.loudness import (
            LoudnessMeter,  # FFmpeg, which readers do not need
        )

        self._path, self._check = path, check
        with disk_errors(self._path):
            self._file = soundfile.SoundFile(
                path, "w", SAMPLE_RATE, CHANNELS, subtype="PCM_24", format="FLAC"
            )
        self._exponents = exponents_of(path).open("wb", buffering=0)
        self._peaks = peaks_of(path).open("wb", buffering=0)
        self._meter = LoudnessMeter()
        self._held = np.zeros((0, CHANNELS), np.float32)
        self._last: int | None = None  # exponent of the last cell
        self._frames = 0
        self.peak = 0.0

    @property
    def loudness(self) -> float | None:
        return self._meter.loudness

    def write(self, block: NDArray[np.float32]) -> None:
        """Append `block` of shape (2, samples), full scale ±1."""
        self._held = np.concatenate((self._held, block.T))
        while len(self._held) >= CELL_FRAMES:
            self._write_cell(self._held[:CELL_FRAMES])
            self._held = self._held[CELL_FRAMES:]

    def finish(self) -> None:
        """Write the rest and the exponents durably, and check that all of it is on the disk.

        Raises:
            OSError: some of it is not.
        """
        if len(self._held):
            self._write_cell(self._held)
        self._file.close()
        self._publish()
        self.close()
        for path in files_of(self._path):
            sync(path)
        # libsndfile reports no error when it cannot write the last piece while it closes a file.
        last = max(0, self._frames - CELL_FRAMES)
        peaks = -(-self._frames // PEAK_FRAMES)
        if (
            sum(map(len, read_stem(self._path, last))) != self._frames - last
            or peaks_of(self._path).stat().st_size != peaks
        ):
            raise OSError(errno.EIO, f"{self._path.name} is cut off")
        if self.peak > HIGHEST_METERED:
            self._measure_again()

    def _measure_again(self) -> None:
        """Measure a stem beyond the meter's range again, scaled, now that its peak is known."""
        from separations.audio.store.loudness import LoudnessMeter

        _mantissa, exponent = math.frexp(self.peak)
        self._meter = LoudnessMeter(exponent)
        for block in read_stem(self._path):
            self._meter.add(block)

    def close(self) -> None:
        """Close the files, finished or not."""
        for file in (self._file, self._exponents, self._peaks):
            file.close()

    def _write_cell(self, samples: NDArray[np.float32]) -> None:
        self._check()
        peaks = _peaks(samples)
        peak = float(peaks.max())
        check_stem(self._path.stem, peak)
        exponent = _exponent(peak)
        with disk_errors(self._path):
            self._file.write(np.ldexp(samples, exponent))
        self._peaks.write(_as_bytes(peaks))
        self._publish()
        self._last = exponent
        self._meter.add(samples)
        self._frames += len(samples)
        self.peak = max(self.peak, peak)

    def _publish(self) -> None:
        """Let readers have the last cell: the encoder writes its end only when more follows."""
        if self._last is not None:
            self._exponents.write(np.array([self._last], np.int8).tobytes())
        self._last = None


def _peaks(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The largest magnitude in each PEAK_FRAMES of a cell of shape (n, 2)."""
    loudest = np.abs(samples).max(axis=1)
    return np.maximum.reduceat(loudest, np.arange(0, len(loudest), PEAK_FRAMES))


def _as_bytes(peaks: NDArray[np.float32]) -> bytes:
    """Amplitudes as bytes v, rounded up: amplitude ≤ (v / 255)² · PEAK_FULL up to that."""
    roots = np.sqrt(np.minimum(peaks / PEAK_FULL, 1.0))
    return bytes(np.ceil(255 * roots).astype(np.uint8))


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


def peaks_of(path: Path) -> Path:
    """Where the peaks of the stem at `path` lie."""
    return path.with_suffix(".peaks")


def files_of(path: Path) -> tuple[Path, Path, Path]:
    """Every file of the stem at `path`."""
    return path, exponents_of(path), peaks_of(path)


def readable_cells(path: Path) -> int:
    """How many cells of the stem at `path` can be read, finished or not."""
    try:
        return exponents_of(path).stat().st_size
    except FileNotFoundError:
        return 0


class _Flac(io.FileIO):
    """A FLAC file whose head states its length, even while it is unfinished.

    Without a length libFLAC guesses where to seek to, and fails where silence takes hardly a byte.

    Args:
        frames: the length of an unfinished file.
    """

    def __init__(self, path: Path, frames: int) -> None:
        super().__init__(path)
        head = bytearray(super().read(FLAC_HEAD))
        # STREAMINFO (RFC 9639, 8.2): the last 36 of these bits are the number of samples, or 0.
        stated = int.from_bytes(head[-5:], "big")
        if len(head) == FLAC_HEAD and not stated & (1 << 36) - 1:
            head[-5:] = (stated | frames).to_bytes(5, "big")
        self._head = bytes(head)
        self.seek(0)

    def readinto(self, buffer: Any) -> int:
        at = self.tell()
        count = super().readinto(buffer) or 0
        known = self._head[at : at + count]
        memoryview(buffer).cast("B")[: len(known)] = known
        return count


def read_stem(path: Path, start: int = 0, stop: int | None = None) -> Iterator[NDArray[np.float32]]:
    """The stem's samples from `start` up to `stop`, in blocks of shape (samples, 2)."""
    exponents = np.frombuffer(exponents_of(path).read_bytes(), np.int8)
    with (
        disk_errors(path),
        _Flac(path, len(exponents) * CELL_FRAMES) as opened,
        soundfile.SoundFile(opened) as file,
    ):
        file.seek(start)
        stop = file.frames if stop is None else min(stop, file.frames)
        while start < stop:
            cell = start // CELL_FRAMES
            frames = min(stop, (cell + 1) * CELL_FRAMES) - start
            block = file.read(frames, dtype="float32", always_2d=True)
            start += frames
            yield np.ldexp(block, -int(exponents[cell]))
