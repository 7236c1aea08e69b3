"""Read the chunks of WAV, RF64, W64 and AIFF files: where the samples lie, and if some are missing.

Programs that write to a pipe cannot know a length beforehand and leave a placeholder in the header;
others are a few bytes off in the size of the whole. Only a data chunk that promises a definite
number of bytes shows that a file is cut off. FFmpeg takes no offence at either, and computes a
length from the bytes that are there.
"""

import os
import struct
from dataclasses import dataclass

from separations.audio.decoding.file_view import FileView, Piece, size_of

MOST_CHUNKS = 2_000  # before the samples; recorders write a dozen
# What may be missing: a recorder that counts its header with the samples, or the last block.
TOLERATED_SECONDS, TOLERATED_BYTES = 0.1, 4096
# Placeholders lie a little below these numbers: of 32 bits with and without a sign, and of 64.
LIMITS_OF_NUMBERS = (1 << 31, 1 << 32, 1 << 63, 1 << 64)
BELOW_A_LIMIT = 1 << 16
EXTENSIBLE, PCM = 0xFFFE, 1
PCM_GUID_END = bytes.fromhex("000000001000800000aa00389b71")  # what follows the number of a codec
W64_RIFF, W64_GUID_END = b"riff", bytes.fromhex("f3acd3118cd100c04f8edb8a")
Chunk = tuple[bytes, int, int]  # name, start of the content, bytes of the content as stated


@dataclass(frozen=True)
class Samples:
    """What a file with chunks says of its samples, and what FFmpeg is to read of it."""

    view: FileView
    missing_bytes: int = 0
    bytes_a_second: int = 0

    @property
    def is_cut(self) -> bool:
        """Whether the data chunk promises more than the file holds."""
        tolerated = max(TOLERATED_BYTES, self.bytes_a_second * TOLERATED_SECONDS)
        return self.missing_bytes > tolerated


def read_chunks(file: int) -> Samples:
    """What the chunks of the open file say. Of a file without readable ones nothing is missing."""
    size = size_of(file)
    rate, pieces = 0, list[Piece]([(0, size)])
    big_size = None  # of the samples, in RF64: the 32 bits hold a placeholder then
    for name, start, stated in _chunks(file, size):
        if name == b"ds64" and len(head := os.pread(file, 16, start)) == 16:
            big_size = int.from_bytes(head[8:], "little")
        elif name in (b"fmt ", b"COMM"):
            form = os.pread(file, 40, start)
            rate = _byte_rate(name, form, _order(file))
            pieces = _with_all_bits_valid(form, start, size, _order(file)) or pieces
        elif name in (b"data", b"SSND"):
            if stated == 0xFFFFFFFF and big_size is not None:
                stated = big_size
            view = FileView(file, pieces)
            if stated == 0 or is_placeholder(stated) or _has_wrapped(stated, size - start):
                return Samples(view)
            return Samples(view, start + stated - size, rate)
    return Samples(FileView(file, pieces))


def is_placeholder(size: int) -> bool:
    """Whether a size stands for "not known yet", as 0xFFFFFFFF or 0x7FFFF000."""
    return any(limit - BELOW_A_LIMIT <= size <= limit for limit in LIMITS_OF_NUMBERS)


def _has_wrapped(stated: int, present: int) -> bool:
    """Whether there are 4 GB more than 32 bits can say."""
    return present >= 1 << 32 and stated < 1 << 32


def _order(file: int) -> str:
    return ">" if os.pread(file, 4, 0) in (b"RIFX", b"FORM") else "<"


def _chunks(file: int, size: int) -> "list[Chunk]":
    head = os.pread(file, 40, 0)
    if head[:16] == W64_RIFF + bytes.fromhex("2e91cf11a5d628db04c10000"):
        return _w64_chunks(file, size)
    if head[:4] not in (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM"):
        return []
    order, place, found = _order(file), 12, list[Chunk]()
    while place + 8 <= size and len(found) < MOST_CHUNKS:
        name, stated = struct.unpack(order + "4sI", os.pread(file, 8, place))
        found.append((name, place + 8, stated))
        place += 8 + stated + stated % 2
    return found


def _w64_chunks(file: int, size: int) -> "list[Chunk]":
    """Sony Wave64: names are GUIDs, sizes have 64 bits and count their own 24 bytes."""
    place, found = 40, list[Chunk]()
    while place + 24 <= size and len(found) < MOST_CHUNKS:
        head = os.pread(file, 24, place)
        stated = int.from_bytes(head[16:], "little")
        name = head[:4] if head[4:16] == W64_GUID_END else b""
        found.append((name, place + 24, stated - 24 if stated >= 24 else 0))
        place += max(24, stated + -stated % 8)
    return found


def _byte_rate(name: bytes, form: bytes, order: str) -> int:
    if name == b"fmt " and len(form) >= 16:
        rate: int = struct.unpack(order + "I", form[8:12])[0]
        return rate
    if name == b"COMM" and len(form) >= 18:
        channels, _frames, bits = struct.unpack(">HIH", form[:8])
        exponent, mantissa = struct.unpack(">HQ", form[8:18])  # a float of 80 bits
        if 16383 <= exponent < 16383 + 63:
            rate = int(mantissa) >> (16383 + 63 - exponent)
            return rate * int(channels) * ((int(bits) + 7) // 8)
    return 0


def _with_all_bits_valid(form: bytes, start: int, size: int, order: str) -> list[Piece] | None:
    """The file with as many valid bits stated as a sample has, where integers have fewer.

    FFmpeg takes the valid bits for the size of a sample. Those that are not valid are zeros.
    """
    if len(form) < 40 or form[26:40] != PCM_GUID_END:
        return None
    tag, bits = struct.unpack(order + "H12xH", form[:16])
    valid, codec = struct.unpack(order + "H4xH", form[18:26])
    if tag != EXTENSIBLE or codec != PCM or not 0 < valid < bits or bits not in (16, 24, 32):
        return None
    return [(0, start + 18), struct.pack(order + "H", bits), (start + 20, size)]
