"""Read a song's tags and cover with mutagen: ID3, APEv2, Vorbis comments, MP4, RIFF, AIFF, ASF.

This runs in the sandbox (`audio.sandbox.worker`). Tags are hostile like all of a file: whatever
is wrong with them, the song is read all the same, with fewer tags or none. What mutagen does not
know (RIFF INFO, Matroska, CAF) comes from FFmpeg's metadata.
"""

import base64
import io
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import FrameType
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

from separations.audio.decoding.charsets import decode_texts
from separations.audio.info import (
    LONGEST_KEY,
    LONGEST_TEXT,
    MOST_BPM,
    MOST_COVER,
    MOST_TRACK,
    Tags,
    cover_type,
)

CPU_SECONDS = 1.0  # to read all tags of a file, and again to decode them; usually milliseconds
MOST_READ = (
    12 << 20
)  # bytes at once. mutagen copies them a few times, in the 128 MiB of the sandbox
MOST_BYTES = 1000  # of a text before it is decoded
FRONT_COVER = 3  # the kind of a picture in ID3, FLAC and ASF
YEAR = re.compile(r"(?<!\d)([12]\d{3})(?:\d{4})?(?!\d)", re.ASCII)  # also of 20190503
PARTS = re.compile(r"\s*(\d{1,4})\s*(?:/\s*(\d{1,4})\s*)?", re.ASCII)
NUMBER = re.compile(r"\s*(\d{1,4}(?:[.,]\d{1,6})?)\s*", re.ASCII)
SURROGATE = re.compile("[\ud800-\udfff]")

Text = str | bytes  # bytes where the character set is not known


@dataclass
class _Found:
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


def read_tags(file: int, container: str, codec: str, metadata: Mapping[str, str]) -> Tags:
    """The tags of an open song, one printable line each. Never fails: what is broken is left out.

    Args:
        file: its descriptor.
        container, codec: by FFmpeg's names.
        metadata: FFmpeg's, decoded from UTF-8 with errors="surrogateescape".
    """
    found: list[_Found] = []
    _within(CPU_SECONDS, lambda: found.extend(_by_mutagen(file, container, codec)))
    made: list[Tags] = []
    _within(CPU_SECONDS, lambda: made.append(_join(found, metadata)))
    return made[0] if made else Tags()


def _join(found: list[_Found], metadata: Mapping[str, str]) -> Tags:
    """Each field of the first kind of tags that has it, FFmpeg's last."""
    found.append(_named({name.lower(): [_raw(text)] for name, text in metadata.items()}))
    texts: dict[str, str] = {}
    for each in found:
        cut = {name: _cut(text) for name, text in each.texts.items()}
        clean = {name: _clean(text) for name, text in decode_texts(cut).items()}
        texts = {name: text for name, text in clean.items() if text} | texts  # the first one holds
    pictures = [picture for each in found for picture in each.pictures]
    return _tags(texts, _cover(pictures))


class _TooLongError(BaseException):
    """Not an Exception, which mutagen might catch."""


def _within(seconds: float, read: Callable[[], object]) -> None:
    """Call `read` for at most so much CPU time, whatever it calls; errors end it, too."""
    end = time.process_time() + seconds

    def look(_frame: FrameType, _event: str, _argument: object) -> None:
        if time.process_time() > end:
            raise _TooLongError

    sys.setprofile(look)
    try:
        read()
    except (Exception, _TooLongError):  # noqa: BLE001, S110 - hostile tags: no tags
        pass
    finally:
        sys.setprofile(None)


# Reading


def _by_mutagen(file: int, container: str, codec: str) -> Iterable[_Found]:
    """What each kind of tags that such a file may have holds."""
    for read in READERS.get(codec if container == "ogg" else container, ()):
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


def _id3(file: BinaryIO) -> _Found:
    return _of_id3(mutagen.id3.ID3(file))


def _of_id3(tags: Any) -> _Found:
    found = _Found()
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
        return ", ".join(values)
    try:
        whole = "\0".join(values).encode("latin-1")  # UTF-16 was taken apart at its zeros
        return whole if whole[:2] in (b"\xff\xfe", b"\xfe\xff") else whole.replace(b"\0", b", ")
    except UnicodeError:
        return ", ".join(values)


def _apev2(file: BinaryIO) -> _Found:
    tags = mutagen.apev2.APEv2(file)
    texts = {
        name.lower(): list(value)
        for name, value in tags.items()
        if isinstance(value, mutagen.apev2.APETextValue)
    }
    found = _named(texts)
    for name, kind in (("Cover Art (Front)", FRONT_COVER), ("Cover Art (Back)", 0)):
        if name in tags:  # a file name, a zero, the picture
            found.pictures.append((kind, bytes(tags[name].value).partition(b"\0")[2]))
    return found


def _flac(file: BinaryIO) -> _Found:
    return _of_vorbis(mutagen.flac.FLAC(file))


def _ogg_vorbis(file: BinaryIO) -> _Found:
    return _of_vorbis(mutagen.oggvorbis.OggVorbis(file))


def _ogg_opus(file: BinaryIO) -> _Found:
    return _of_vorbis(mutagen.oggopus.OggOpus(file))


def _ogg_flac(file: BinaryIO) -> _Found:
    return _of_vorbis(mutagen.oggflac.OggFLAC(file))


def _of_vorbis(song: Any) -> _Found:
    """Vorbis comments. Pictures are blocks of FLAC; in Ogg they are comments in base64."""
    comments = {name.lower(): list(values) for name, values in (song.tags or {}).items()}
    found = _named(comments)
    blocks = list(getattr(song, "pictures", ()))
    for text in comments.get("metadata_block_picture", ())[:10]:
        blocks.append(mutagen.flac.Picture(base64.b64decode(text)))
    found.pictures = [(int(each.type), each.data) for each in blocks]
    return found


def _mp4(file: BinaryIO) -> _Found:
    tags: Any = mutagen.mp4.MP4(file).tags or {}
    found = _Found()
    for name, atom in MP4_ATOMS.items():
        values = tags.get(atom) or []
        if values and isinstance(values[0], bytes):
            found.texts[name] = bytes(values[0])
        elif values and values[0]:
            found.texts[name] = ", ".join(map(str, values))
    for number, total in (tags.get("trkn") or [])[:1]:
        found.texts["track"] = f"{number}/{total}"
    found.pictures = [(FRONT_COVER, bytes(each)) for each in tags.get("covr") or []]
    return found


def _wave(file: BinaryIO) -> _Found:
    return _of_id3(mutagen.wave.WAVE(file).tags)


def _aiff(file: BinaryIO) -> _Found:
    return _of_id3(mutagen.aiff.AIFF(file).tags)


def _asf(file: BinaryIO) -> _Found:
    tags: Any = mutagen.asf.ASF(file).tags
    found = _named({name.lower(): [str(each) for each in tags[name]] for name in tags.keys()})  # noqa: SIM118 - a list of pairs
    for each in tags.get("WM/Picture", ()):
        # Kind, length, type and description in UTF-16 that end with a zero, the picture.
        kind, rest = each.value[0], each.value[5:]
        for _text in range(2):
            end = next(at for at in range(0, len(rest), 2) if rest[at : at + 2] == b"\0\0")
            rest = rest[end + 2 :]
        found.pictures.append((kind, rest))
    return found


READERS: dict[str, tuple[Callable[[BinaryIO], _Found], ...]] = {
    "mp3": (_id3, _apev2),
    "aac": (_id3, _apev2),
    "flac": (_flac, _id3),
    "vorbis": (_ogg_vorbis,),
    "opus": (_ogg_opus,),
    "wav": (_wave,),
    "aiff": (_aiff,),
    "mov": (_mp4,),
    "asf": (_asf,),
}


# Values


def _named(texts: Mapping[str, list[Any]]) -> _Found:
    """The fields among texts with free names (in lower case)."""
    found = _Found()
    for name, spellings in NAMES.items():
        values = next((texts[each] for each in spellings if texts.get(each)), [])
        if values:
            is_raw = isinstance(values[0], bytes)
            found.texts[name] = values[0] if is_raw else ", ".join(map(str, values[:10]))
    return found


def _raw(text: str) -> Text:
    """FFmpeg's text, or its bytes where they are not UTF-8."""
    if not SURROGATE.search(text):
        return text
    return text.encode(errors="surrogateescape")


def _cut(text: Text) -> Text:
    """At most MOST_BYTES characters, or bytes up to a space, so that none is cut in two."""
    if isinstance(text, str) or len(text) <= MOST_BYTES:
        return text[:MOST_BYTES]
    return text[:MOST_BYTES].rpartition(b" ")[0]


def _clean(text: str) -> str:
    """A text as one printable line of at most LONGEST_TEXT characters."""
    printable = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(printable.split())[:LONGEST_TEXT].strip()


def _tags(texts: dict[str, str], cover: bytes) -> Tags:
    track, total = _track(texts.get("track", ""), texts.get("total", ""))
    year = YEAR.search(texts.get("year", ""))
    key = texts.get("key", "")
    return Tags(
        title=texts.get("title", ""),
        artist=texts.get("artist", ""),
        album=texts.get("album", ""),
        track=track,
        track_total=total,
        year=int(year[1]) if year else None,
        genre=texts.get("genre", ""),
        bpm=_bpm(texts.get("bpm", "")),
        key=key if len(key) <= LONGEST_KEY else "",
        cover=cover,
    )


def _track(text: str, total_text: str) -> tuple[int | None, int | None]:
    """Track and total from "3/12", or from "3" and "12"."""
    match, other = PARTS.fullmatch(text), PARTS.fullmatch(total_text)
    track = int(match[1]) if match else 0
    total = int((match and match[2]) or (other and other[1]) or 0)
    if not 0 < track <= MOST_TRACK:
        return None, None
    return track, total if track <= total <= MOST_TRACK else None


def _bpm(text: str) -> float | None:
    match = NUMBER.fullmatch(text)
    bpm = round(float(match[1].replace(",", ".")), 2) if match else 0.0
    return bpm if 0 < bpm <= MOST_BPM else None


def _cover(pictures: list[tuple[int, bytes]]) -> bytes:
    """The front cover, else the first picture, of those that are JPEG or PNG and not too large."""
    fit = [(kind, data) for kind, data in pictures if len(data) <= MOST_COVER and cover_type(data)]
    front = [data for kind, data in fit if kind == FRONT_COVER]
    return (front or [data for _kind, data in fit] or [b""])[0]
