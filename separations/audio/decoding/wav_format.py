"""Put the format of WAV files right that FFmpeg misreads: unused bits, and big-endian samples."""

import struct

from separations.audio.decoding.file_view import Piece, Range

PCM, FLOAT, ALAW, MULAW, EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
# What follows the number of a codec in WAVE_FORMAT_EXTENSIBLE.
GUID_END = {
    "<": bytes.fromhex("000000001000800000aa00389b71"),
    ">": bytes.fromhex("00000010800000aa00389b71"),
}


def with_all_bits_valid(form: bytes, order: str, start: int, end: int) -> list[Piece] | None:
    """The file with as many valid bits stated as a sample has, where integers have fewer.

    FFmpeg takes the valid bits for the size of a sample. Those that are not valid are zeros.

    Args:
        form: the content of the chunk "fmt ", which begins at `start` in a file of `end` bytes.
        order: of its bytes, as struct has it.

    Returns:
        None where nothing is to be changed.
    """
    codec, bits = _codec(form, order)
    if codec != PCM or len(form) < 40 or bits not in (16, 24, 32):
        return None
    (valid,) = struct.unpack(order + "H", form[18:20])
    if not 0 < valid < bits:
        return None
    return [(0, start + 18), struct.pack(order + "H", bits), (start + 20, end)]


def as_caf(form: bytes, samples: Range) -> list[Piece] | None:
    """A RIFX file as one of Core Audio, whose samples FFmpeg reads in their order of bytes.

    Args:
        form: the content of its chunk "fmt ".
        samples: where they lie in the file.

    Returns:
        None where the order of bytes makes no difference.
    """
    codec, bits = _codec(form, ">")
    if codec not in (PCM, FLOAT) or bits not in (16, 24, 32, 64):
        return None
    channels, rate = struct.unpack(">HI", form[2:8])
    size = channels * bits // 8
    flags = 1 if codec == FLOAT else 0  # bit 1 would mean little-endian
    described = struct.pack(">d4s5I", rate, b"lpcm", flags, size, 1, channels, bits)
    head = struct.pack(">4sHH4sQ", b"caff", 1, 0, b"desc", len(described)) + described
    # The size of "data" is unknown; four bytes in it count edits.
    return [head + struct.pack(">4sqI", b"data", -1, 0), samples]


def _codec(form: bytes, order: str) -> tuple[int, int]:
    """The number of the codec and the bits of a sample; zeros if there are none."""
    if len(form) < 16:
        return 0, 0
    codec, bits = struct.unpack(order + "H12xH", form[:16])
    rest = GUID_END[order]
    if codec == EXTENSIBLE and len(form) == 40 and form.endswith(rest):
        (codec,) = struct.unpack(order + "H", form[: -len(rest)][-2:])
    return codec, bits
