"""Cut a chained Ogg file into its links, each with headers of its own (RFC 3533, 4).

Radio recordings are such chains: each song is a link, with other settings, another rate or another
codec. FFmpeg decodes all links with the headers of the first, which makes noise of the second.
"""

import os
from collections.abc import Iterator
from itertools import islice

from separations.audio.decoding.file_view import Range, size_of
from separations.errors.fault import Fault

MARK = b"OggS"
HEAD_BYTES = 27
FIRST_PAGE = 2  # the flag of a page that begins a stream
MOST_LINKS = 2_000  # a day of radio has four hundred songs
MOST_PAGES = 1_000_000  # a page has 4 kB, mostly
# What the first page of a stream that may be heard or seen begins with.
CODECS = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   ", b"fishead\0", b"\x80theora")
BLOCK_BYTES = 1 << 20
# A first page holds one small header. Its checksum is verified, as a link begins there.
LARGEST_FIRST_PAGE = 2_000


def links(file: int) -> list[Range]:
    """Where the links of the open file lie. A file without chains is one link.

    The last one ends with its last page, as FFmpeg takes what follows for damage.

    Raises:
        Fault: absurd_index for more links than any recording has.
    """
    starts, end, in_headers = [0], size_of(file), True
    page_end = end
    for number, (place, page) in enumerate(_pages(file, end)):
        if number == MOST_PAGES:
            raise Fault("absurd_index", entries=number, most=MOST_PAGES)
        page_end = place + _size(page)
        if not page[5] & FIRST_PAGE:
            in_headers = False
        # Streams that are played together begin together, before the first page of any content.
        elif not in_headers and _is_whole(file, place, page):
            in_headers = True
            starts.append(place)
            if len(starts) > MOST_LINKS:
                raise Fault("absurd_index", entries=len(starts), most=MOST_LINKS)
    return list(zip(starts, [*starts[1:], min(end, page_end)], strict=True))


def _pages(file: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Place and first bytes of each page; what is damaged between pages is skipped."""
    block, first, place = b"", 0, 0
    while place + HEAD_BYTES <= end:
        if not first <= place <= first + len(block) - HEAD_BYTES - 255:
            block, first = os.pread(file, BLOCK_BYTES, place), place
        here = place - first
        if block[here : here + 4] != MARK:
            found = block.find(MARK, here)
            place = first + found if found >= 0 else first + max(here + 1, len(block) - 3)
            continue
        page = block[here : here + HEAD_BYTES + 255]
        if len(page) < HEAD_BYTES:
            return
        yield place, page
        place += _size(page)


def _size(page: bytes) -> int:
    content_at = HEAD_BYTES + page[26]
    return content_at + sum(page[HEAD_BYTES:content_at])


def _is_whole(file: int, place: int, page: bytes) -> bool:
    content_at, size = HEAD_BYTES + page[26], _size(page)
    if size > LARGEST_FIRST_PAGE:
        return False
    content = os.pread(file, size, place)
    if not content[content_at:].startswith(CODECS):
        return False
    stated = int.from_bytes(content[22:26], "little")
    return _checksum(content[:22] + bytes(4) + content[26:]) == stated


def _checksum(content: bytes) -> int:
    """The checksum of a page: CRC-32 of the polynomial 0x04C11DB7, not reflected."""
    value = 0
    for byte in content:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1) ^ (0x04C11DB7 if value & 0x80000000 else 0)
        value &= 0xFFFFFFFF
    return value


def is_last_page_cut(file: int) -> bool:
    """Ogg states no length, but its last page how many bytes that has (RFC 3533, 6)."""
    end, page_end = size_of(file), 0
    for place, page in islice(_pages(file, end), MOST_PAGES):
        page_end = place + _size(page)
    # What follows the last page is not Ogg, unless a page begins there that has no whole head.
    return page_end == 0 or page_end > end or os.pread(file, 4, page_end) == MARK
