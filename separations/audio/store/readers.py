"""Sources of stereo samples for rendering: of known length, readable from any sample on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from separations.audio.info import SAMPLE_RATE
from separations.audio.store.stem_file import read_stem

Samples = NDArray[np.float32]  # (samples, 2), full scale ±1


class Reader(Protocol):
    """A stem, a mix of several, or a part of either. rate: samples a second.

    A sample has the same bits wherever reading began, so a resumed download continues the same
    file.
    """

    @property
    def frames(self) -> int: ...

    @property
    def rate(self) -> int: ...

    def read(self, start: int, stop: int) -> Iterator[Samples]:
        """The samples from `start` up to `stop`, in blocks of at most a second and a half."""
        ...


@dataclass(frozen=True)
class StoredStem:
    """One stem in the store."""

    path: Path
    frames: int
    rate: int = SAMPLE_RATE

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

    @property
    def rate(self) -> int:
        return self.whole.rate

    def read(self, start: int, stop: int) -> Iterator[Samples]:
        return self.whole.read(self.start + start, min(self.start + stop, self.stop))


@dataclass(frozen=True)
class Watched:
    """The samples of another reader; `check` is called before each block, and may raise."""

    whole: Reader
    check: Callable[[], None]

    @property
    def frames(self) -> int:
        return self.whole.frames

    @property
    def rate(self) -> int:
        return self.whole.rate

    def read(self, start: int, stop: int) -> Iterator[Samples]:
        self.check()
        for block in self.whole.read(start, stop):
            yield block
            self.check()
