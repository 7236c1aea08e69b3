"""A file that encoders write to from beginning to end."""

from typing import Any, BinaryIO


class WriteOnly:
    """A file without seeking, whose `write` writes everything or fails."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        whole = len(rest)
        while rest:
            rest = rest[self._file.write(rest) :]
        return whole
