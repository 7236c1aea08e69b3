"""Messages from a sandboxed decoder: a kind, a length, and so many bytes."""

import struct

import numpy as np
from numpy.typing import NDArray

Block = NDArray[np.float32]  # (2, samples)

HEAD = struct.Struct("=cI")  # kind, length in bytes
TEXT = b"t"  # a JSON object
SAMPLES = b"s"  # float32 of shape (CHANNELS, samples), in the machine's byte order
COVER = b"c"  # a picture, after the facts about a song that has one
MOST_TEXT = 1 << 16  # bytes
MOST_SAMPLES = 1 << 20  # of each channel
