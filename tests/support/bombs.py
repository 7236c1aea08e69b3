"""MP4 files whose tables say what no song holds."""

import struct

RATE = 44_100
CODEC = b"\x12\x10"  # AudioSpecificConfig: AAC-LC, 44.1 kHz, stereo


def box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I", 8 + len(content)) + kind + content


def full(kind: bytes, *parts: bytes) -> bytes:
    """A box with version and flags 0."""
    return box(kind, bytes(4), *parts)


def table(kind: bytes, *rows: tuple[int, ...], count: int = 0) -> bytes:
    packed = b"".join(struct.pack(f">{len(row)}I", *row) for row in rows)
    return full(kind, struct.pack(">I", count or len(rows)), packed)


def sizes(count: int, each: int) -> bytes:
    """stsz of samples that are all of one size."""
    return full(b"stsz", struct.pack(">II", each, count))


def one_byte_sizes(count: int) -> bytes:
    """stz2: a byte of the file for each sample."""
    return full(b"stz2", b"\0\0\0\x08", struct.pack(">I", count), b"\1" * count)


def _description() -> bytes:
    decoder = b"\x04" + bytes([15 + len(CODEC)]) + b"\x40\x15\0\0\0"
    decoder += struct.pack(">II", 128_000, 128_000) + b"\x05" + bytes([len(CODEC)]) + CODEC
    stream = b"\x03" + bytes([6 + len(decoder)]) + b"\0\1\0" + decoder + b"\x06\x01\x02"
    sound = struct.pack(">HHHHI", 2, 16, 0, 0, RATE << 16)
    entry = box(b"mp4a", bytes(6), b"\0\1", bytes(8), sound, full(b"esds", stream))
    return full(b"stsd", struct.pack(">I", 1), entry)


def track(samples: int, *tables: bytes) -> bytes:
    chunks = table(b"stsc", (1, max(1, samples), 1)) + table(b"stco", (32,))
    index = box(b"stbl", _description(), *tables, chunks)
    place = box(b"dinf", full(b"dref", struct.pack(">I", 1), box(b"url ", b"\0\0\0\1")))
    media = box(
        b"mdia",
        full(b"mdhd", struct.pack(">IIIIHH", 0, 0, RATE, RATE, 0x55C4, 0)),
        full(b"hdlr", bytes(4), b"soun", bytes(13)),
        box(b"minf", full(b"smhd", bytes(4)), place, index),
    )
    head = box(b"tkhd", b"\0\0\0\7", struct.pack(">IIIII", 0, 0, 1, 0, 1000), bytes(60))
    return box(b"trak", head, media)


def film(*inside: bytes) -> bytes:
    head = full(b"mvhd", struct.pack(">IIII", 0, 0, 1000, 1000), bytes(76), b"\0\0\0\2")
    return box(b"moov", head, *inside)


def file(moov: bytes, *more: bytes) -> bytes:
    kind = box(b"ftyp", b"M4A \0\0\0\0M4A mp42isom")
    return kind + moov + b"".join(more) + box(b"mdat", bytes(4096))


def steady(samples: int, ticks: int = 1024) -> bytes:
    return table(b"stts", (samples, ticks))


def fragment(samples: int, runs: int = 1) -> bytes:
    head = box(b"tfhd", b"\0\0\0\x38", struct.pack(">IIII", 1, 1024, 1, 0))
    return box(b"moof", box(b"traf", head, *[table(b"trun", count=samples)] * runs))
