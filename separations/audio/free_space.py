"""Check the free space of a disk before and while a file is written, keeping a reserve.

Two writers may both find the same space. So a file that grows needs MARGIN more than its next
piece: what several writers add between their checks fits into that.
"""

import errno
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

MARGIN = 4_000_000  # bytes; the largest piece between two checks is a tenth of it


@dataclass(frozen=True)
class Room:
    """The space on the disk of `folder`. keep_free: bytes of reserve; 0 if it may be filled."""

    folder: Path
    keep_free: int = 0

    @property
    def margin(self) -> int:
        """What must be left besides a file's own bytes, so that it may grow to its end."""
        return MARGIN if self.keep_free else 0

    def left(self) -> int:
        """Bytes that may still be written; negative if the reserve is in use."""
        return shutil.disk_usage(self.folder).free - self.keep_free

    def most(self) -> int:
        """Bytes that could be written to the disk if it were empty."""
        return shutil.disk_usage(self.folder).total - self.keep_free

    def check(self, expected: int = 0) -> None:
        """Check that `expected` bytes may be written.

        Raises:
            OSError: ENOSPC if they may not, or why the disk cannot be examined.
        """
        if self.left() < expected:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))

    def check_next(self, margin: int = MARGIN) -> None:
        """Check that a file may grow by one more piece. Raises as `check`."""
        if self.keep_free:
            self.check(margin)
