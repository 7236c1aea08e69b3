"""Parts of an open file, joined to one file object that PyAV reads.

Tags that lie between frames are left out and wrong numbers in a header replaced, without a copy of
the file: the sandbox has the one open file and cannot write another.
"""

import os
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

Range = tuple[int, int]  # from this byte of the file up to, not including, that one
Piece = Range | bytes  # bytes stand in the view as they are


def size_of(file: int) -> int:
    """Bytes of the open file with the descriptor `file`.

    By seeking: os.fstat may call newfstatat, which takes paths and is closed in the sandbox.
    """
    here = os.lseek(file, 0, os.SEEK_CUR)
    try:
        return os.lseek(file, 0, os.SEEK_END)
    finally:
        os.lseek(file, here, os.SEEK_SET)


class FileView:
    """A read-only file object over `pieces` of the open file with the descriptor `file`."""

    name = ""  # FFmpeg decides by content alone what a file is

    def __init__(self, file: int, pieces: Sequence[Piece]) -> None:
        self._file, self.pieces = file, [piece for piece in pieces if _length(piece)]
        self._ends = list(accumulate(map(_length, self.pieces)))
        self.size = self._ends[-1] if self._ends else 0
        self._place = 0

    @classmethod
    def whole(cls, file: int) -> "FileView":
        return cls(file, [(0, size_of(file))])

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end only."""
        number = bisect_right(self._ends, self._place)
        if number == len(self.pieces):
            return b""
        piece = self.pieces[number]
        inside = self._place - (self._ends[number] - _length(piece))
        size = min(size, _length(piece) - inside)
        if isinstance(piece, bytes):
            found = piece[inside : inside + size]
        else:
            found = os.pread(self._file, size, piece[0] + inside)
        self._place += len(found)
        return found

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self.size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def tell(self) -> int:
        return self._place


def _length(piece: Piece) -> int:
    return len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]
