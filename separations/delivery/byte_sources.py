"""Byte sources: whatever can be read from any byte on, to be sent as a download."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from separations.jobs import results
from separations.models import Job


class ByteSource(Protocol):
    """Bytes to send.

    size: how many, None while that is not known yet.
    """

    @property
    def size(self) -> int | None: ...

    def read(self, start: int, stop: int | None) -> Iterator[bytes]:
        """The bytes from `start` up to `stop`, or to the end where that is None."""
        ...


@dataclass(frozen=True)
class InMemory:
    """Bytes in memory."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, start: int, stop: int | None) -> Iterator[bytes]:
        yield self.data[start:stop]


@dataclass(frozen=True)
class OfResult:
    """Bytes of a job's result, which is recorded as used while they are read."""

    job: Job
    source: ByteSource

    @property
    def size(self) -> int | None:
        return self.source.size

    def read(self, start: int, stop: int | None) -> Iterator[bytes]:
        for piece in self.source.read(start, stop):
            results.record_use(self.job)
            yield piece
