"""Chunks of stored stems for the player in the page: one chunk for each cell of the store.

They are 16-bit FLAC, which browsers decode to the exact number of samples, so that chunks can be
played end to end; scaled by a power of two where a stem exceeds full scale.
"""

import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from separations.audio.info import SAMPLE_RATE
from separations.audio.store.stem_file import CELL_FRAMES, read_stem, readable_cells

CHUNK_FRAMES = CELL_FRAMES
HIGHEST = 1.0 - 2.0**-16  # what rounds to the largest number in 16 bits


@dataclass(frozen=True)
class Chunk:
    """A FLAC file; its samples are those of the stem times 2^exponent."""

    data: bytes
    exponent: int


def read_chunk(path: Path, index: int) -> Chunk | None:
    """Chunk `index` of the stem at `path`, None while (or when) there is none.

    Raises:
        OSError: the stem cannot be read.
    """
    if not 0 <= index < readable_cells(path):
        return None
    start = index * CHUNK_FRAMES
    samples = np.concatenate(list(read_stem(path, start, start + CHUNK_FRAMES)))
    peak = float(np.abs(samples).max())
    exponent = min(0, -math.ceil(math.log2(peak / HIGHEST))) if peak > HIGHEST else 0
    file = io.BytesIO()
    soundfile.write(file, np.ldexp(samples, exponent), SAMPLE_RATE, subtype="PCM_16", format="FLAC")
    return Chunk(file.getvalue(), exponent)
