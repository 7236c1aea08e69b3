"""Read a song's tags and cover with mutagen: ID3, APEv2, Vorbis comments, MP4, RIFF, AIFF, ASF.

This runs in the sandbox (`audio.sandbox.worker`). Tags are hostile like all of a file: whatever
is wrong with them, the song is read all the same, with fewer tags or none. What mutagen does not
know (RIFF INFO, Matroska, CAF) comes from FFmpeg's metadata.
"""

import re
import sys
import time
from collections.abc import Callable, Mapping
from types import FrameType

from separations.audio.decoding.charsets import decode_texts
from separations.audio.decoding.tag_formats import FRONT_COVER, Found, Text, by_mutagen, named
from separations.audio.info import (
    LONGEST_KEY,
    LONGEST_TEXT,
    MOST_BPM,
    MOST_COVER,
    MOST_TRACK,
    Tags,
    cover_type,
    printable_line,
)

CPU_SECONDS = 1.0  # to read all tags of a file, and again to decode them; usually milliseconds
MOST_BYTES = 1000  # of a text before it is decoded
YEAR = re.compile(r"(?<!\d)([12]\d{3})(?:\d{4})?(?!\d)", re.ASCII)  # also of 20190503
PARTS = re.compile(r"\s*(\d{1,4})\s*(?:/\s*(\d{1,4})\s*)?", re.ASCII)
NUMBER = re.compile(r"\s*(\d{1,4}(?:[.,]\d{1,6})?)\s*", re.ASCII)
SURROGATE = re.compile("[\ud800-\udfff]")


def read_tags(file: int, container: str, codec: str, metadata: Mapping[str, str]) -> Tags:
    """The tags of an open song, one printable line each. Never fails: what is broken is left out.

    Args:
        file: its descriptor.
        container, codec: by FFmpeg's names.
        metadata: FFmpeg's, decoded from UTF-8 with errors="surrogateescape".
    """
    found: list[Found] = []
    _within(CPU_SECONDS, lambda: found.extend(by_mutagen(file, container, codec)))
    made: list[Tags] = []
    _within(CPU_SECONDS, lambda: made.append(_join(found, metadata)))
    return made[0] if made else Tags()


def _join(found: list[Found], metadata: Mapping[str, str]) -> Tags:
    """Each field of the first kind of tags that has it, FFmpeg's last."""
    found.append(named({name.lower(): [_raw(text)] for name, text in metadata.items()}))
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


# Values


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
    return printable_line(text)[:LONGEST_TEXT].strip()


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
