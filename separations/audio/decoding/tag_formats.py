"""The kinds of tags that files have, each read with mutagen into the same fields.

ID3, APEv2, Vorbis comments, MP4, AIFF, ASF, and ID3 in RIFF. For `audio.decoding.tags`, in the
sandbox; everything here may raise anything for hostile files.
"""

import base64
import io
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

import mutagen.aiff
import mutagen.apev2
import mutagen.asf
import mutagen.flac
import mutagen.id3
import mutagen.mp4
import mutagen.oggflac
import mutagen.oggopus
import mutagen.oggvorbis
import mutagen.wave

MOST_READ = 12 << 20  # bytes at once; mutagen copies them a few times, in the sandbox's 128 MiB
FRONT_COVER = 3  # the kind of a picture in ID3, FLAC and ASF

Text = str | bytes  # bytes where the character set is not known


@dataclass
class Found:
    """What one kind of tags holds: texts by the names of `NAMES`, pictures with their kinds."""

    texts: dict[str, Text] = field(default_factory=dict)
    pictures: list[tuple[int, bytes]] = field(default_factory=list)


# The names that formats with free names use for each field, in lower case.
NAMES = {
    "title": ("title",),
    "artist": ("artist", "author"),
    "album": ("album", "wm/albumtitle"),
    "track": ("tracknumber", "track", "wm/tracknumber", "part_number"),
    "total": ("tracktotal", "totaltracks"),
    "year": ("date", "year", "wm/year", "date_released", "originaldate"),
    "genre": ("genre", "wm/genre"),
    "bpm": ("bpm", "tbpm", "tmpo", "tempo", "wm/beatsperminute"),
    "key": ("initialkey", "initial_key", "key", "tkey", "wm/initialkey"),
}
ID3_FRAMES = {
    "title": "TIT2",
    "artist": "TPE1",
    "album": "TALB",
    "track": "TRCK",
    "year": "TDRC",
    "genre": "TCON",
    "bpm": "TBPM",
    "key": "TKEY",
}
MP4_ATOMS = {
    "title": "\xa9nam",
    "artist": "\xa9ART",
    "album": "\xa9alb",
    "year": "\xa9day",
    "genre": "\xa9gen",
    "bpm": "tmpo",
    "key": "----:com.apple.iTunes:initialkey",
}


def named(texts: Mapping[str, list[Any]]) -> Found:
    """The fields among texts with free names (in lower case)."""
    found = Found()
    for name, spellings in NAMES.items():
        values = next((texts[each] for each in spellings if texts.get(each)), [])
        if values:
            is_raw = isinstance(values[0], bytes)
            found.texts[name] = values[0] if is_raw else _joined(values)
    return found


def _joined(values: list[Any]) -> str:
    """Several values as one text; some programs write each twice."""
    return ", ".join(dict.fromkeys(map(str, values[:10])))


def by_mutagen(file: int, container: str, codec: str) -> Iterator[Found]:
    """What each kind of tags that such a file may have holds."""
    for read in READERS.get(f"ogg {codec}" if container == "ogg" else container, ()):
        try:
            yield read(cast(BinaryIO, _File(file)))
        except Exception:  # noqa: BLE001, S112 - there are none of this kind, or they are broken
            continue


class _File(io.RawIOBase):
    """The song for mutagen, which is refused large pieces."""

    def __init__(self, file: int) -> None:
        self._file, self._at = file, 0
        self._size = os.lseek(file, 0, os.SEEK_END)

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._at)
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > MOST_READ:
            raise OSError("a tag that is too large")
        data = os.pread(self._file, wanted, self._at)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        at = offset + (0, self._at, self._size)[whence]
        if at < 0:
            raise OSError("before the beginning")
        self._at = at
        return at

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


def _id3(file: BinaryIO) -> Found:
    return _of_id3(mutagen.id3.ID3(file))


def _of_id3(tags: Any) -> Found:
    found = Found()
    for name, frame_name in ID3_FRAMES.items():
        frame = tags.get(frame_name)
        if frame is None:
            continue
        values = [str(each) for each in (frame.genres if name == "genre" else frame.text)]
        found.texts[name] = _of_frame(
            values, is_latin=frame.encoding == mutagen.id3.Encoding.LATIN1
        )
    found.pictures = [(int(each.type), each.data) for each in tags.getall("APIC")]
    return found


def _of_frame(values: list[str], *, is_latin: bool) -> Text:
    """A frame's texts; as bytes where it says Latin-1, which is not true of many."""
    if not is_latin:
        return _joined(values)
    try:
        whole = "\0".join(values).encode("latin-1")  # UTF-16 was taken apart at its zeros
        return whole if whole[:2] in (b"\xff\xfe", b"\xfe\xff") else whole.replace(b"\0", b", ")
    except UnicodeError:
        return _joined(values)


def _apev2(file: BinaryIO) -> Found:
    tags = mutagen.apev2.APEv2(file)
    texts = {
        name.lower(): list(value)
        for name, value in tags.items()
        if isinstance(value, mutagen.apev2.APETextValue)
    }
    found = named(texts)
    for name, kind in (("Cover Art (Front)", FRONT_COVER), ("Cover Art (Back)", 0)):
        if name in tags:  # a file name, a zero, the picture
            found.pictures.append((kind, bytes(tags[name].value).partition(b"\0")[2]))
    return found


def _flac(file: BinaryIO) -> Found:
    return _of_vorbis(mutagen.flac.FLAC(file))


def _ogg_vorbis(file: BinaryIO) -> Found:
    return _of_vorbis(mutagen.oggvorbis.OggVorbis(file))


def _ogg_opus(file: BinaryIO) -> Found:
    return _of_vorbis(mutagen.oggopus.OggOpus(file))


def _ogg_flac(file: BinaryIO) -> Found:
    return _of_vorbis(mutagen.oggflac.OggFLAC(file))


def _of_vorbis(song: Any) -> Found:
    """Vorbis comments. Pictures are blocks of FLAC; in Ogg they are comments in base64."""
    comments = {name.lower(): list(values) for name, values in (song.tags or {}).items()}
    found = named(comments)
    blocks = list(getattr(song, "pictures", ()))
    for text in comments.get("metadata_block_picture", ())[:10]:
        blocks.append(mutagen.flac.Picture(base64.b64decode(text)))
    found.pictures = [(int(each.type), each.data) for each in blocks]
    return found


def _mp4(file: BinaryIO) -> Found:
    tags: Any = mutagen.mp4.MP4(file).tags or {}
    found = Found()
    for name, atom in MP4_ATOMS.items():
        values = tags.get(atom) or []
        if values and isinstance(values[0], bytes):
            found.texts[name] = bytes(values[0])
        elif values and values[0]:
            found.texts[name] = _joined(values)
    for number, total in (tags.get("trkn") or [])[:1]:
        found.texts["track"] = f"{number}/{total}"
    found.pictures = [(FRONT_COVER, bytes(each)) for each in tags.get("covr") or []]
    return found


def _wave(file: BinaryIO) -> Found:
    return _of_id3(mutagen.wave.WAVE(file).tags)


def _aiff(file: BinaryIO) -> Found:
    return _of_id3(mutagen.aiff.AIFF(file).tags)


def _asf(file: BinaryIO) -> Found:
    tags: Any = mutagen.asf.ASF(file).tags
    found = named({name.lower(): [str(each) for each in tags[name]] for name in tags.keys()})  # noqa: SIM118 - a list of pairs
    for each in tags.get("WM/Picture", ()):
        # Kind, length, type and description in UTF-16 that end with a zero, the picture.
        kind, rest = each.value[0], each.value[5:]
        for _text in range(2):
            end = next(at for at in range(0, len(rest), 2) if rest[at : at + 2] == b"\0\0")
            rest = rest[end + 2 :]
        found.pictures.append((kind, rest))
    return found


READERS: dict[str, tuple[Callable[[BinaryIO], Found], ...]] = {
    "mp3": (_id3, _apev2),
    "aac": (_id3, _apev2),
    "wv": (_apev2,),
    "flac": (_flac, _id3),
    "ogg vorbis": (_ogg_vorbis,),
    "ogg opus": (_ogg_opus,),
    "ogg flac": (_ogg_flac,),
    "wav": (_wave,),
    "aiff": (_aiff,),
    "mov": (_mp4,),
    "asf": (_asf,),
}
