"""Find which parts of a file FFmpeg is to read, each by itself, and whether the file is cut off.

A file of most kinds is one part. This looks at what FFmpeg does not, or gets wrong: sizes in the
header of a WAV, the links of a chained Ogg, what an MP3 is joined of.
"""

from collections.abc import Callable
from dataclasses import dataclass

from separations.audio.decoding import mp3_frames, ogg_links
from separations.audio.decoding.chunks import read_chunks
from separations.audio.decoding.file_view import FileView
from separations.audio.decoding.stated_sizes import (
    is_data_object_cut,
    is_fragment_cut,
    is_segment_cut,
)


@dataclass(frozen=True)
class Parts:
    """What is to be read of a file, in order.

    views: of one part or more.
    is_cut: whether the file's own structure shows that its end is missing.
    proves_length: whether a length that FFmpeg states of the file can be taken for one.
    lost_seconds: which are missing by the file's own count of its frames.
    rate: of the song, where that is not the first part's.
    """

    views: list[FileView]
    is_cut: bool = False
    proves_length: bool = False
    lost_seconds: float = 0.0
    rate: int | None = None


def find_chunked_parts(file: int) -> Parts | None:
    """The part of the open file if it is one of chunks (WAV, W64, AIFF, CAF).

    FFmpeg refuses some of these before it names their container, for their sizes.
    """
    samples = read_chunks(file)
    return Parts([samples.view], is_cut=samples.is_cut) if samples else None


def find_parts(file: int, container: str) -> Parts:
    """The parts of the open file with the descriptor `file`, of FFmpeg's container `container`."""
    return FINDERS.get(container, _one)(file)


def _one(file: int) -> Parts:
    return Parts([FileView.whole(file)], proves_length=True)


def _ogg(file: int) -> Parts:
    views = [FileView(file, [link]) for link in ogg_links.links(file)]
    return Parts(views, is_cut=ogg_links.is_last_page_cut(file))


def _mp3(file: int) -> Parts:
    found = mp3_frames.parts(file)
    views = [FileView(file, part.ranges) for part in found] or [FileView.whole(file)]
    lost = sum(max(0.0, part.stated_seconds - part.seconds) for part in found)
    return Parts(views, lost_seconds=lost, rate=_rate(found))


def _rate(found: list[mp3_frames.Part]) -> int | None:
    """The longest part's rate, if the first is short beside it: a few stray frames, a jingle."""
    longest = max(found, key=lambda part: part.seconds, default=None)
    return longest.rate if longest and longest.seconds > 2 * found[0].seconds else None


def _matroska(file: int) -> Parts:
    return Parts([FileView.whole(file)], is_cut=is_segment_cut(file), proves_length=True)


def _asf(file: int) -> Parts:
    return Parts([FileView.whole(file)], is_cut=is_data_object_cut(file))


def _mov(file: int) -> Parts:
    return Parts([FileView.whole(file)], is_cut=is_fragment_cut(file), proves_length=True)


FINDERS: dict[str, Callable[[int], Parts]] = {
    "ogg": _ogg,
    "mp3": _mp3,
    "matroska": _matroska,
    "asf": _asf,
    "mov": _mov,
}
