"""Whether Matroska, ASF and MP4 files are shorter than the sizes that they state."""

import os
from collections.abc import Iterator

from separations.audio.decoding.file_view import size_of

# Matroska (MKV, WebM; RFC 8794 and 9559)
SEGMENT = 0x18538067  # holds everything behind the first element
HEAD_BYTES = 12  # of an element: an id of up to 4 bytes, a size of up to 8
# ASF (WMA)
DATA_OBJECT = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
# MP4
MOST_BOXES = 300_000


def is_segment_cut(file: int) -> bool:
    """Whether the segment promises more bytes than there are. A live recording promises none."""
    place = 0
    for _ in range(4):  # the header, and at most a few empty elements
        head = os.pread(file, HEAD_BYTES, place)
        if len(head) < HEAD_BYTES or not head[0] & 0xF0:
            return False
        id_bytes = 9 - head[0].bit_length()
        size_bytes = 9 - head[id_bytes].bit_length()
        if size_bytes > 8 or id_bytes + size_bytes > HEAD_BYTES:
            return False
        size = int.from_bytes(head[id_bytes : id_bytes + size_bytes], "big")
        size -= 1 << 7 * size_bytes  # the bit that tells how many bytes there are
        is_unknown = size == (1 << 7 * size_bytes) - 1
        place += id_bytes + size_bytes
        if int.from_bytes(head[:id_bytes], "big") == SEGMENT:
            return not is_unknown and place + size > size_of(file)
        place += size
    return False


def is_data_object_cut(file: int) -> bool:
    """Whether an ASF file's packets promise more bytes than there are. A live one promises none."""
    header = int.from_bytes(os.pread(file, 8, 16), "little")
    if header >= size_of(file):
        return False
    data = os.pread(file, 24, header)
    size = int.from_bytes(data[16:], "little")
    return data[:16] == DATA_OBJECT and size > 50 and header + size > size_of(file)


def ends_before_index(file: int) -> bool:
    """Whether an MP4 file ends before its index, which stands behind the sound."""
    boxes = list(_boxes(file))
    if not boxes or boxes[0][0] not in (b"ftyp", b"wide", b"mdat"):
        return False
    kinds = {kind for kind, _is_whole in boxes}
    if (b"moov", True) in boxes:
        return False
    # A picture (HEIC, AVIF) has another index.
    return not boxes[-1][1] or (b"mdat" in kinds and b"meta" not in kinds)


def is_fragment_cut(file: int) -> bool:
    """Whether the last fragment of an MP4 file is not whole. Others state their length instead."""
    boxes = list(_boxes(file))
    has_fragments = any(kind == b"moof" for kind, _is_whole in boxes)
    return has_fragments and boxes[-1] in ((b"moof", False), (b"mdat", False))


def _boxes(file: int) -> Iterator[tuple[bytes, bool]]:
    """Kind of each box that is in no other, and whether the file holds all of it."""
    end, place = size_of(file), 0
    for _ in range(MOST_BOXES):
        head = os.pread(file, 16, place)
        if len(head) < 8:
            return
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        elif size == 0:  # up to the end
            size = end - place
        if size < 8:
            return
        yield head[4:8], place + size <= end
        place += size
