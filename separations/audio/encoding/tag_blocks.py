"""Write tags and covers as each download format keeps them, with mutagen.

The same tags give the same bytes: no padding, no times.
"""

import base64
import errno
import io
from pathlib import Path
from typing import Any

from mutagen import MutagenError
from mutagen.flac import Picture, VCFLACDict
from mutagen.id3 import (
    APIC,
    ID3,
    TALB,
    TBPM,
    TCON,
    TDRC,
    TIT2,
    TKEY,
    TPE1,
    TRCK,
    Encoding,
    PictureType,
)
from mutagen.mp4 import MP4, MP4Cover

from separations.audio.info import Tags, cover_type

UTF16 = Encoding.UTF16  # which every reader of ID3v2.3 knows; UTF-8 came with 2.4
ID3_FRAMES: dict[str, Any] = {
    "title": TIT2,
    "artist": TPE1,
    "album": TALB,
    "track": TRCK,
    "year": TDRC,
    "genre": TCON,
    "bpm": TBPM,
    "key": TKEY,
}
VORBIS_NAMES = {
    "title": "TITLE",
    "artist": "ARTIST",
    "album": "ALBUM",
    "track": "TRACKNUMBER",
    "total": "TRACKTOTAL",
    "year": "DATE",
    "genre": "GENRE",
    "bpm": "BPM",
    "key": "INITIALKEY",  # as Traktor, Mixxx and others call it
}
INITIAL_KEY = "----:com.apple.iTunes:initialkey"  # the same in MP4


def texts(tags: Tags) -> dict[str, str]:
    """All that tags say, but the cover, as texts without empty ones."""
    found = {
        "title": tags.title,
        "artist": tags.artist,
        "album": tags.album,
        "track": str(tags.track or ""),
        "total": str(tags.track_total or ""),
        "year": f"{tags.year:04}" if tags.year else "",
        "genre": tags.genre,
        "bpm": f"{tags.bpm:.2f}".rstrip("0").rstrip(".") if tags.bpm else "",
        "key": tags.key,
    }
    return {name: text for name, text in found.items() if text}


def id3(tags: Tags) -> bytes:
    """ID3v2.3 in UTF-16, which every player reads; empty where there are no tags."""
    found = texts(tags) | ({"track": tags.track_of_total} if tags.track else {})
    frames = ID3()
    for name, frame in ID3_FRAMES.items():
        if name in found:
            frames.add(frame(encoding=UTF16, text=[found[name]]))
    if tags.cover:
        frames.add(
            APIC(
                encoding=Encoding.LATIN1,
                mime=cover_type(tags.cover),
                type=PictureType.COVER_FRONT,
                desc="",
                data=tags.cover,
            )
        )
    frames.update_to_v23()
    file = io.BytesIO()
    frames.save(file, v1=0, v2_version=3, padding=_no_padding)
    return file.getvalue()


def vorbis_comments(tags: Tags) -> dict[str, str]:
    """Vorbis comments by their names, as FLAC and Opus have them; without the cover."""
    return {VORBIS_NAMES[name]: text for name, text in texts(tags).items()}


def comment_block(tags: Tags, vendor: str) -> bytes:
    """The content of FLAC's block VORBIS_COMMENT."""
    block = VCFLACDict()
    block.vendor = vendor
    block.extend(vorbis_comments(tags).items())
    return bytes(block.write())


def picture_block(cover: bytes) -> bytes:
    """The content of FLAC's block PICTURE (RFC 9639, 8.8). Width and height are not stated."""
    picture = Picture()
    picture.type, picture.mime, picture.data = PictureType.COVER_FRONT, cover_type(cover), cover
    return bytes(picture.write())


def opus_comments(tags: Tags) -> dict[str, str]:
    """Vorbis comments with the cover among them: a picture block in base64."""
    comments = vorbis_comments(tags)
    if tags.cover:
        block = base64.b64encode(picture_block(tags.cover)).decode()
        comments["METADATA_BLOCK_PICTURE"] = block
    return comments


def tag_mp4(path: Path, tags: Tags) -> None:
    """Write tags into an MP4 file that has none. The samples move, their index follows.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        _tag_mp4(path, tags)
    except MutagenError as error:  # which hides the errors of the disk
        cause = error.__context__
        raise cause if isinstance(cause, OSError) else OSError(errno.EIO, str(error)) from error


def _tag_mp4(path: Path, tags: Tags) -> None:
    found = texts(tags)
    mp4 = MP4(path)
    if mp4.tags is None:
        mp4.add_tags()
    for name, atom in (("title", "nam"), ("artist", "ART"), ("album", "alb"), ("genre", "gen")):
        if name in found:
            mp4[f"\xa9{atom}"] = found[name]
    if tags.year:
        mp4["\xa9day"] = found["year"]
    if tags.track:
        mp4["trkn"] = [(tags.track, tags.track_total or 0)]
    if tags.bpm:
        mp4["tmpo"] = [max(1, round(tags.bpm))]  # a whole number, by the format
    if tags.key:
        mp4[INITIAL_KEY] = tags.key.encode()
    if tags.cover:
        is_png = cover_type(tags.cover) == "image/png"
        kind = MP4Cover.FORMAT_PNG if is_png else MP4Cover.FORMAT_JPEG
        mp4["covr"] = [MP4Cover(tags.cover, kind)]
    mp4.save(padding=_no_padding)


def _no_padding(_info: object) -> int:
    return 0
