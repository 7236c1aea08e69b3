"""Whether a Matroska file (MKV, WebM) is shorter than its header says (RFC 8794, 9559)."""

import os

from separations.audio.decoding.file_view import size_of

SEGMENT = 0x18538067  # holds everything behind the first element
HEAD_BYTES = 12  # of an element: an id of up to 4 bytes, a size of up to 8


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
