"""Stored stems mixed as on a mixer: faders, pan, and how loud it gets."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from separations.audio.info import CHANNELS
from separations.audio.mix_text import FARTHEST, UNITY, MixSettings
from separations.audio.readers import Samples
from separations.audio.stems import CELL_FRAMES, PEAK_FRAMES, PEAK_FULL, peaks_of, read_stem

CELLS_LOOKED_AT = 8
PIECES_PER_CELL = CELL_FRAMES // PEAK_FRAMES


def gain_of(volume: int) -> float:
    """What a fader at `volume` multiplies with: a cubic law, as ears count loudness."""
    return (volume / UNITY) ** 3


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
        """A track with the pan law of the Web Audio API's StereoPannerNode for stereo: equal power.

        One side stays as it is, the other one moves over (W3C Web Audio API 1.1, 1.29.3).
        """
        angle = (1 - abs(pan) / FARTHEST) * math.pi / 2
        stays, moves = math.sin(angle), math.cos(angle) if pan else 0.0
        if pan <= 0:
            return cls(path, (gain, gain * stays), (gain * moves, 0.0))
        return cls(path, (gain * stays, gain), (0.0, gain * moves))

    @property
    def most(self) -> float:
        """By how much this multiplies the louder of two channels at most."""
        return max(own + crossed for own, crossed in zip(self.own, self.crossed, strict=True))


@dataclass(frozen=True)
class Mix:
    """Stems of `frames` samples, added up. Reads block by block: memory does not grow with them."""

    tracks: tuple[Track, ...]
    frames: int

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
        """What no sample exceeds, for each piece of PEAK_FRAMES."""
        pieces = -(-self.frames // PEAK_FRAMES)
        bounds = np.zeros(pieces)
        for track in self.tracks:
            bounds += track.most * _peaks(track.path, pieces)
        return bounds


def _peaks(path: Path, pieces: int) -> NDArray[np.float64]:
    """What no sample of a stem exceeds, piece by piece; infinite where nobody noted it."""
    peaks = np.full(pieces, np.inf)
    try:
        stored = np.frombuffer(peaks_of(path).read_bytes(), np.uint8)[:pieces]
    except FileNotFoundError:  # of an earlier version
        return peaks
    known = np.square(stored / 255.0) * PEAK_FULL
    known[stored == 255] = np.inf  # or anything above
    peaks[: len(known)] = known
    return peaks


@lru_cache(maxsize=256)  # a player that seeks asks for the same again and again
def peak_of(mix: Mix, start: int, stop: int) -> float:
    """The largest sample of `mix` from `start` up to `stop`, though little of it is decoded.

    Cells come in the order of what they can hold at most, until what was found exceeds all that is
    left. A peak above full scale, on which a gain depends, is exact. One below is that of the
    CELLS_LOOKED_AT cells that can be loudest: to prove it would take most of the song.
    """
    if start >= stop:
        return 0.0
    first, last = start // PEAK_FRAMES, -(-stop // PEAK_FRAMES)
    bounds = np.zeros(-(-last // PIECES_PER_CELL) * PIECES_PER_CELL)
    bounds[first:last] = mix.bounds()[first:last]
    cells = bounds.reshape(-1, PIECES_PER_CELL)
    found = 0.0
    for rank, cell in enumerate(np.argsort(-cells.max(axis=1), kind="stable")):
        enough = found if rank < CELLS_LOOKED_AT else max(found, 1.0)
        loud = np.flatnonzero(cells[cell] > enough)
        if not len(loud):
            break
        pieces = cell * PIECES_PER_CELL + loud
        begin = max(start, int(pieces[0]) * PEAK_FRAMES)
        end = min(stop, (int(pieces[-1]) + 1) * PEAK_FRAMES)
        for block in mix.read(begin, end):
            found = max(found, float(np.abs(block).max()))
    return found
