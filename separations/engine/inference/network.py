"""The interface of a network, whichever engine runs it. This module does not import torch."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


class Network(Protocol):
    """Separates one chunk of a song."""

    def run(self, mixture: Samples, context: int, length: int, sources: list[int]) -> Samples:
        """Estimate `sources` (columns of the network's) over `length` samples of `mixture`.

        Args:
            mixture: normalised, shape (2, context + length + context): the chunk and its
                surroundings in the song, zeros outside the song.

        Returns:
            Shape (sources, 2, length).
        """
        ...


def window(mixture: Samples, context: int, length: int, wanted: int) -> tuple[Samples, int]:
    """`wanted` samples around the chunk, half of the surplus on each side.

    The rule of demucs.apply.TensorChunk.padded and demucs.utils.center_trim.

    Returns:
        The samples, and where in them the chunk begins.
    """
    before = (wanted - length) // 2
    start = context - before
    return mixture[:, start : start + wanted], before
