"""Tags as bytes, also such as no good program writes."""

import struct
from collections.abc import Mapping

JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(range(256)) + b"\xff\xd9"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


def text_frame(name: str, content: bytes, version: int = 3) -> bytes:
    """A frame of ID3v2: the character set as its first byte, and the text."""
    size = len(content)
    packed = synchsafe(size) if version == 4 else struct.pack(">I", size)
    return name.encode() + packed + b"\0\0" + content


def id3(*frames: bytes, version: int = 3, cover: bytes = b"") -> bytes:
    """A tag of ID3v2."""
    if cover:
        picture = b"\0image/jpeg\0\x03\0" + cover
        frames = (*frames, text_frame("APIC", picture, version))
    content = b"".join(frames)
    return b"ID3" + bytes((version, 0, 0)) + synchsafe(len(content)) + content


def synchsafe(size: int) -> bytes:
    return bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))


def id3v1(title: bytes, artist: bytes, album: bytes = b"") -> bytes:
    texts = (text[:30].ljust(30, b"\0") for text in (title, artist, album))
    return b"TAG" + b"".join(texts) + b"\0" * 4 + b"\0" * 30 + b"\xff"


def apev2(
    texts: Mapping[str, str],
    pictures: Mapping[str, bytes] | None = None,
    count: int | None = None,
    size: int | None = None,
) -> bytes:
    """A tag of APEv2 with a header and a footer, which may lie about number and size."""
    items = [(name, text.encode(), 0) for name, text in texts.items()]
    items += [(name, data, 2) for name, data in (pictures or {}).items()]
    content = b"".join(
        struct.pack("<II", len(data), flags) + name.encode() + b"\0" + data
        for name, data, flags in items
    )
    told = len(content) + 32 if size is None else size
    about = (2000, told, len(items) if count is None else count)

    def block(flags: int) -> bytes:
        return b"APETAGEX" + struct.pack("<IIII", *about, flags) + bytes(8)

    return block(0xA0000000) + content + block(0x80000000)


def riff_info(wav: bytes, **texts: bytes) -> bytes:
    """A WAV file with a chunk LIST INFO behind its samples."""
    info = b"INFO"
    for name, text in texts.items():
        data = text + b"\0"
        info += name.encode() + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
    song = wav + b"LIST" + struct.pack("<I", len(info)) + info
    return song[:4] + struct.pack("<I", len(song) - 8) + song[8:]
