"""Tags as bytes, also such as no good program writes."""

import base64
import io
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import mutagen.flac
import mutagen.mp4
import mutagen.oggopus
import mutagen.oggvorbis
import mutagen.wave
from mutagen.id3 import APIC, TALB, TBPM, TCON, TDRC, TIT2, TKEY, TPE1, TRCK, Encoding

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


# All tags, as good programs write them


def with_id3(file: Any) -> None:
    file.add_tags() if file.tags is None else None
    for frame in (
        TIT2(Encoding.UTF8, "봄날"),
        TPE1(Encoding.UTF8, "Ä & Ö"),
        TALB(Encoding.UTF8, "Album"),
        TRCK(Encoding.UTF8, "7/12"),
        TDRC(Encoding.UTF8, "1999-05-03"),
        TCON(Encoding.UTF8, "17"),
        TBPM(Encoding.UTF8, "127.98"),
        TKEY(Encoding.UTF8, "F#m"),
        APIC(Encoding.UTF8, "image/png", 4, "", PNG),
        APIC(Encoding.UTF8, "image/jpg", 3, "front", JPEG),
    ):
        file.tags.add(frame)


def with_comments(file: Any) -> None:
    comments = {
        "Title": "봄날",
        "ARTIST": "Ä & Ö",
        "album": "Album",
        "tracknumber": "07",
        "tracktotal": "12",
        "date": "19990503",
        "genre": "Rock",
        "bpm": "127,98",
        "initialkey": "F#m",
    }
    for name, text in comments.items():
        file[name] = text
    picture = mutagen.flac.Picture()
    picture.type, picture.mime, picture.data = 3, "image/jpeg", JPEG
    if isinstance(file, mutagen.flac.FLAC):
        file.add_picture(picture)
    else:
        file["metadata_block_picture"] = base64.b64encode(picture.write()).decode()


def with_atoms(file: Any) -> None:
    file["\xa9nam"], file["\xa9ART"], file["\xa9alb"] = "봄날", "Ä & Ö", "Album"
    file["\xa9day"], file["\xa9gen"], file["trkn"], file["tmpo"] = "1999", "Rock", [(7, 12)], [128]
    file["----:com.apple.iTunes:initialkey"] = b"F#m"
    file["covr"] = [mutagen.mp4.MP4Cover(JPEG)]


KINDS: dict[str, tuple[Any, Any]] = {
    "mp3": (mutagen.File, with_id3),
    "wav": (mutagen.wave.WAVE, with_id3),
    "flac": (mutagen.flac.FLAC, with_comments),
    "ogg": (mutagen.oggvorbis.OggVorbis, with_comments),
    "opus": (mutagen.oggopus.OggOpus, with_comments),
    "m4a": (mutagen.mp4.MP4, with_atoms),
}


def fully_tagged(kind: str, data: bytes) -> bytes:
    """A file with all tags and a cover, by its kind."""
    library, add = KINDS[kind]
    song = io.BytesIO(data)
    file = library(song)
    add(file)
    song.seek(0)
    file.save(song)
    return song.getvalue()


# Hostile tags


def bomb(megabytes: int) -> bytes:
    """A compressed frame of ID3v2.4, with its length before it."""
    data = zlib.compress(b"\0" + bytes(megabytes << 20), 9)
    content = struct.pack(">I", 1 << 20) + data
    return b"TXXX" + synchsafe(len(content)) + b"\0\x09" + content


def nested(depth: int) -> bytes:
    frame = b""
    for _ in range(depth):
        frame = b"CHAP" + synchsafe(len(frame) + 18) + b"\0\0" + b"a\0" + bytes(16) + frame
    return frame


def with_comment(flac: bytes, size: bytes) -> bytes:
    """A block of comments before the others but the first, with one of which the size is given."""
    content = bytes(4) + b"\1\0\0\0" + size + b"title=T"
    return flac[:42] + b"\x04" + len(content).to_bytes(3, "big") + content + flac[42:]


def atoms(depth: int) -> bytes:
    atom = b""
    for _ in range(depth):
        atom = struct.pack(">I", len(atom) + 8) + b"moov" + atom
    return atom


HOSTILE: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "bombs in frames": ("mp3", lambda song: id3(*[bomb(30)] * 6, version=4) + song),
    "a bomb larger than memory": ("mp3", lambda song: id3(bomb(200), version=4) + song),
    "frames in frames": ("mp3", lambda song: id3(nested(3000), version=4) + song),
    "many frames": (
        "mp3",
        lambda song: id3(b"".join([text_frame("TXXX", b"\0a\0b", 4)] * 10_000), version=4) + song,
    ),
    "an APE of 4 billion items": (
        "mp3",
        lambda song: song + apev2({"Title": "T"}, count=0xFFFFFFFF),
    ),
    "an APE of 4 GB": ("mp3", lambda song: song + apev2({"Title": "T"}, size=0xFFFFFFFF)),
    "atoms in atoms": ("m4a", lambda song: song + atoms(5000)),
    "many atoms": ("m4a", lambda song: song + b"\0\0\0\x08free" * 30_000),
    "a comment of 4 GB": ("flac", lambda song: with_comment(song, b"\xf0\xff\xff\xff")),
}
