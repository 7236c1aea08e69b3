"""What can be rendered: stereo samples of a known length, readable from anywhere in blocks."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from separations.audio.stems import read_stem

Samples = NDArray[np.float32]  # (samples, 2), full scale ±1


class Reader(Protocol):
    """A stem, a mix of several, or a part of either.

    The same sample is the same to the last bit wherever reading began: a download that is resumed
    goes on with the file that was begun.
    """

    @property
    def frames(self) -> int: ...

    def read(self, start: int, stop: int) -> Iterator[Samples]:
        """The samples from `start` up to `stop`, in blocks of at most a second and a half."""
        ...


@dataclass(frozen=True)
class StoredStem:
    """One stem in the store."""

    path: Path
    frames: int

    def read(self, start: int, stop: int) -> Iterator[Samples]:
        return read_stem(self.path, start, stop)


@dataclass(frozen=True)
class Part:
    """The samples of another reader from `start` up to `stop`."""

    whole: Reader
    start: int
    stop: int

    @property
    def frames(self) -> int:
        return self.stop - self.start

    def read(self, start: int, stop: int) -> Iterator[Samples]:
        return self.whole.read(self.start + start, min(self.start + stop, self.stop))
