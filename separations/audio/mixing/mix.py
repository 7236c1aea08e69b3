"""Mix stored stems with faders and pan, and find the peak of a mix."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from separations.audio.info import CHANNELS, SAMPLE_RATE
from separations.audio.mixing.gain_laws import gain_of, pan_gains
from separations.audio.mixing.mix_spec import MixSettings
from separations.audio.store.readers import Samples
from separations.audio.store.stem_file import (
    CELL_FRAMES,
    PEAK_FRAMES,
    PEAK_FULL,
    exponents_of,
    peaks_of,
    read_stem,
)

CELLS_TRIED = 8
CELLS_AT_ONCE = 32  # 48 s of a song; ten minutes in four stems took a CPU 10 s
PIECES_PER_CELL = CELL_FRAMES // PEAK_FRAMES


class Turn(Protocol):
    """A turn at work that only a few may do at once, as `fair_use.client_turns` has them."""

    def __enter__(self) -> "Turn": ...

    def __exit__(self, *error: object) -> None: ...

    def share(self) -> None:
        """Let other turns go first before the rest, if this one takes long."""


class Alone:
    """A turn without any limit."""

    def __enter__(self) -> "Alone":
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def share(self) -> None:
        pass


@dataclass(frozen=True)
class Track:
    """One stem in a mix.

    Left and right are multiplied with `own`; `crossed` is how much of the right goes left, and of
    the left goes right.
    """

    path: Path
    own: tuple[float, float]
    crossed: tuple[float, float]

    @classmethod
    def of(cls, path: Path, gain: float, pan: int) -> "Track":
        """A track at this gain and pan position (see `pan_gains`)."""
        stays, moves = pan_gains(pan)
        if pan <= 0:
            return cls(path, (gain, gain * stays), (gain * moves, 0.0))
        return cls(path, (gain * stays, gain), (0.0, gain * moves))

    @classmethod
    def plain(cls, path: Path) -> "Track":
        """A track that leaves its stem as it is."""
        return cls(path, (1.0, 1.0), (0.0, 0.0))

    @property
    def most(self) -> float:
        """The largest gain that the louder of two channels can get."""
        return max(own + crossed for own, crossed in zip(self.own, self.crossed, strict=True))


@dataclass(frozen=True)
class Mix:
    """The sum of stems of `frames` samples, read block by block in constant memory."""

    tracks: tuple[Track, ...]
    frames: int
    rate: int = SAMPLE_RATE

    @classmethod
    def of(cls, settings: MixSettings, paths: dict[str, Path], frames: int) -> "Mix":
        """The mix of the stems at `paths`, by name, as `settings` say."""
        master = gain_of(settings.master)
        tracks = (
            Track.of(paths[strip.name], master * gain_of(strip.volume), strip.pan)
            for strip in settings.audible
        )
        return cls(tuple(tracks), frames)

    def read(self, start: int, stop: int) -> Iterator[Samples]:
        stop = min(stop, self.frames)
        readers = [read_stem(track.path, start, stop) for track in self.tracks]
        while start < stop:
            frames = min(stop, (start // CELL_FRAMES + 1) * CELL_FRAMES) - start
            mixed = np.zeros((frames, CHANNELS), np.float32)
            for track, reader in zip(self.tracks, readers, strict=True):
                # Not by a matrix product: how that rounds depends on where reading began.
                block = next(reader)
                mixed += block * np.array(track.own, np.float32)
                if any(track.crossed):
                    mixed += block[:, ::-1] * np.array(track.crossed, np.float32)
            yield mixed
            start += frames

    def bounds(self) -> NDArray[np.float64]:
        """An upper bound of the samples in each piece of PEAK_FRAMES."""
        pieces = -(-self.frames // PEAK_FRAMES)
        bounds = np.zeros(pieces)
        for track in self.tracks:
            bounds += track.most * _peaks(track.path, pieces)
        return bounds


def _peaks(path: Path, pieces: int) -> NDArray[np.float64]:
    """An upper bound of a stem's samples, piece by piece; infinite where no peaks are stored.

    Stored peaks end at PEAK_FULL; beyond that a cell's exponent is the bound.
    """
    peaks = np.full(pieces, np.inf)
    try:
        stored = np.frombuffer(peaks_of(path).read_bytes(), np.uint8)[:pieces]
    except FileNotFoundError:  # of an earlier version
        return peaks
    known = np.square(stored / 255.0) * PEAK_FULL
    exponents = np.frombuffer(exponents_of(path).read_bytes(), np.int8)
    cells = np.flatnonzero(stored == 255)
    of_cells = np.full(-(-pieces // PIECES_PER_CELL), np.inf)
    of_cells[: len(exponents)] = np.exp2(-exponents[: len(of_cells)].astype(np.float64))
    known[cells] = of_cells[cells // PIECES_PER_CELL]
    peaks[: len(known)] = known
    return peaks


class _Peak:
    """The peak of a part of a mix, once it is known."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.value: float | None = None


@lru_cache(maxsize=256)  # a player that seeks asks for the same repeatedly
def _peak(_mix: Mix, _start: int, _stop: int) -> _Peak:
    return _Peak()


def peak_of(mix: Mix, start: int, stop: int, turn: Callable[[], Turn] = Alone) -> float:
    """The largest sample of `mix` from `start` up to `stop`, found by decoding little of it.

    Cells are decoded in the order of their upper bounds, until the peak found exceeds all other
    bounds. A peak above full scale, on which a gain depends, is exact up to PEAK_FULL. A lower one
    is that of the CELLS_TRIED cells with the highest bounds: a proof would decode most of the
    song. So it would for a peak above PEAK_FULL, for which its upper bound is returned.

    Args:
        turn: makes a turn to wait for before more than CELLS_AT_ONCE cells are decoded. Of a song
            that is loud throughout these are all.
    """
    if start >= stop:
        return 0.0
    peak = _peak(mix, start, stop)
    with peak.lock:
        if peak.value is None:
            peak.value = _search(mix, start, stop, turn)
        return peak.value


def cell_bounds(mix: Mix, start: int, stop: int) -> NDArray[np.float64]:
    """The bounds of `mix` in a part of it, a row for each cell; 0 outside the part."""
    first, last = start // PEAK_FRAMES, -(-stop // PEAK_FRAMES)
    bounds = np.zeros(-(-last // PIECES_PER_CELL) * PIECES_PER_CELL)
    bounds[first:last] = mix.bounds()[first:last]
    return bounds.reshape(-1, PIECES_PER_CELL)


def _search(mix: Mix, start: int, stop: int, turn: Callable[[], Turn]) -> float:
    cells = cell_bounds(mix, start, stop)
    found = 0.0
    with ExitStack() as stack:
        held: Turn | None = None
        for rank, cell in enumerate(np.argsort(-cells.max(axis=1), kind="stable")):
            highest = float(cells[cell].max())
            if rank >= CELLS_TRIED and found > PEAK_FULL and math.isfinite(highest):
                return max(found, highest)
            enough = found if rank < CELLS_TRIED else max(found, 1.0)
            loud = np.flatnonzero(cells[cell] > enough)
            if not len(loud):
                break
            if rank == CELLS_AT_ONCE:
                held = stack.enter_context(turn())
            elif held is not None:
                held.share()
            pieces = cell * PIECES_PER_CELL + loud
            begin = max(start, int(pieces[0]) * PEAK_FRAMES)
            end = min(stop, (int(pieces[-1]) + 1) * PEAK_FRAMES)
            for block in mix.read(begin, end):
                found = max(found, float(np.abs(block).max()))
    return found
