"""Check the size of an MP4 or QuickTime file's index before FFmpeg builds it in memory.

FFmpeg holds some forty bytes for each sample that an index names, and a sample need not have a byte
in the file: a box that states "twenty million samples of one byte" has 24 bytes. So the numbers
that the tables state are added up first (ISO/IEC 14496-12). Files of other kinds have no such
boxes, and pass. Where FFmpeg reads a file differently, the sandbox's limit on memory still holds.
"""

import os
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator

from separations.audio.decoding.file_view import size_of
from separations.errors.fault import Fault

# Ten hours of AAC at 44.1 kHz; all the tracks of a film of two hours have half of it.
MOST_ENTRIES = 1_500_000
MOST_BOXES = 300_000  # an hour in fragments of a tenth of a second has 250,000
MOST_PACKED = 16 << 20  # bytes of an index that is compressed
SAMPLES_AN_ENTRY = 1024  # FFmpeg's, where all samples are alike and last one tick: PCM
PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"edts", b"mfra")
# Tables with a number of entries, and where it stands in the box's content.
TABLES = {
    **dict.fromkeys((b"stts", b"ctts", b"stsc", b"stco", b"co64", b"stss", b"stps", b"elst"), 4),
    **{b"trun": 4, b"stsz": 8, b"stz2": 8, b"tfra": 12},
}
# Descriptions of encrypted sound: MPEG's (ISO/IEC 14496-12, 8.12) and Apple's.
ENCRYPTED = (b"enca", b"drms")
HEAD_BYTES = 28  # of a table: enough for the number, and for the first entry of stts

Read = Callable[[int, int], bytes]  # so many bytes from there on, fewer at the end


def check_index(file: int) -> None:
    """Check that no table in the open file has more entries than a song's.

    Raises:
        Fault: absurd_index; protected where sound is encrypted.
    """
    index = _Index()
    index.scan(lambda start, size: os.pread(file, size, start), 0, size_of(file))
    index.end_track()


class _Index:
    """Adds up the entries of one file's tables, kind by kind."""

    def __init__(self) -> None:
        self._entries: Counter[bytes] = Counter()
        self._boxes = 0
        # Of the current track: whether its samples last one tick each, and how many have one size.
        self._plain, self._alike = False, 0

    def scan(self, read: Read, start: int, end: int) -> None:
        """Add up the tables between `start` and `end`."""
        pending = [(start, end)]  # no recursion: a hostile file nests boxes as deep as it likes
        while pending:
            start, end = pending.pop()
            for kind, inside, stop in self._boxes_in(read, start, end):
                if kind == b"trak":
                    self.end_track()
                if kind == b"cmov":
                    self._add_packed(read, inside, stop)
                elif kind in PARENTS:
                    pending += [(stop, end), (inside, stop)]  # first what is in it
                    break
                elif kind == b"stsd" and read(inside + 12, 4) in ENCRYPTED:
                    raise Fault("protected")
                elif kind in TABLES:
                    self._count(kind, read(inside, HEAD_BYTES))

    def _boxes_in(self, read: Read, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
        """Kind, start of the content, and end of each box that is readable."""
        while start + 8 <= end:
            self._boxes += 1
            if self._boxes > MOST_BOXES:
                raise _absurd(self._boxes, MOST_BOXES)
            head = read(start, 16)
            if len(head) < 8:
                return
            size, kind = struct.unpack(">I4s", head[:8])
            inside = start + 8
            if size == 1 and len(head) == 16:
                size, inside = int.from_bytes(head[8:], "big"), start + 16
            stop = end if size == 0 else min(end, start + size)
            if stop < inside:
                return
            yield kind, inside, stop
            start = stop

    def _count(self, kind: bytes, head: bytes) -> None:
        at = TABLES[kind]
        if len(head) < at + 4:
            return
        count = int.from_bytes(head[at : at + 4], "big")
        if kind == b"stts":
            self._plain = count == 1 and head[12:16] == b"\0\0\0\1"
        if kind == b"stsz" and head[4:8] != bytes(4):
            self._alike += count
        else:
            self._add(kind, count)

    def end_track(self) -> None:
        """Count a track's samples that need no table, because all have one size."""
        self._add(b"stsz", self._alike // SAMPLES_AN_ENTRY if self._plain else self._alike)
        self._plain, self._alike = False, 0

    def _add(self, kind: bytes, count: int) -> None:
        self._entries[kind] += count
        if self._entries[kind] > MOST_ENTRIES:
            raise _absurd(self._entries[kind], MOST_ENTRIES)

    def _add_packed(self, read: Read, start: int, end: int) -> None:
        """An index in zlib's format: QuickTime's cmov, of dcom and cmvd (after its size)."""
        for kind, inside, stop in self._boxes_in(read, start, end):
            if kind == b"cmvd":
                packed = read(inside + 4, min(stop - inside, MOST_PACKED))
                unpacker = zlib.decompressobj()
                try:
                    index = unpacker.decompress(packed, MOST_PACKED)
                except zlib.error:
                    return
                if unpacker.unconsumed_tail:
                    raise _absurd(MOST_ENTRIES, MOST_ENTRIES)
                self.scan(_reading(index), 0, len(index))


def _reading(content: bytes) -> Read:
    return lambda start, size: content[start : start + size]


def _absurd(entries: int, most: int) -> Fault:
    return Fault("absurd_index", entries=entries, most=most)
