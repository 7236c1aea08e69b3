"""ZIP files that are made while they are sent: the same bytes each time, readable from any byte on.

Members are stored without compression. Their checksums stand behind them (APPNOTE 6.3.10, 4.3.9),
so that a member is sent while it is read, and while its length is not known yet. Which records are
those of ZIP64 follows from the most that a member can have: a beginning that was sent before the
lengths were known fits the end that is asked for later.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from separations.delivery.byte_sources import ByteSource, InMemory

MOST = 0xFFFFFFFF  # what 32 bits hold; also the mark that a value stands in a ZIP64 record
KEPT_EVERY = 1 << 24  # bytes of a member, of which nothing is sent
CHECKSUM_FOLLOWS, NAME_IS_UTF8 = 1 << 3, 1 << 11
PLAIN_VERSION, ZIP64_VERSION = 20, 45
MADE_ON_UNIX = 3 << 8
ATTRIBUTES = 0o100644 << 16  # a file that everybody may read
FIRST_YEAR, LAST_YEAR = 1980, 2107


@dataclass(frozen=True)
class Sum:
    """The CRC-32 of a member's first `length` bytes; of all of them if `is_whole`."""

    checksum: int = 0
    length: int = 0
    is_whole: bool = False

    def followed_by(self, piece: bytes, at: int) -> "Sum":
        """With the bytes of `piece`, which begins at `at`, that come after it."""
        new = memoryview(piece)[max(0, self.length - at) :]
        return Sum(zlib.crc32(new, self.checksum), self.length + len(new))


class Sums(Protocol):
    """Checksums of members by their names, as far as they are known."""

    def get(self, name: str) -> Sum | None: ...

    def put(self, name: str, found: Sum) -> None: ...


class SharedTurn(Protocol):
    """A turn at a scarce resource; see `fair_use.client_turns.Turn`."""

    def share(self) -> None: ...


class Member:
    """A file in the archive, as a byte source.

    Args:
        most: an upper bound of its bytes, the same whenever the archive is made.
        sums: what is known already; what is found out is added.
        turn: asks for the turn in which bytes are read that nobody is sent.
    """

    def __init__(
        self,
        name: str,
        source: ByteSource,
        most: int,
        sums: Sums,
        turn: Callable[[], AbstractContextManager[SharedTurn | None]] = nullcontext,
    ) -> None:
        self.name, self.is_long = name, most > MOST
        self._source, self._sums, self._turn = source, sums, turn
        self._sent: int | None = None

    @property
    def size(self) -> int | None:
        return self._source.size if self._sent is None else self._sent

    def read(self, start: int, stop: int | None) -> Iterator[bytes]:
        """Its bytes from `start` up to `stop`.

        The checksum goes along from the beginning to the end. Where a reader stopped, it is kept
        for the one who comes back for the rest. One who reads everything gets the sum of just that,
        whatever was kept.

        Raises:
            OSError: the source ended too early.
        """
        size = self.size
        is_end = stop is None or stop == size
        before = self._known()
        if start == 0 and is_end:
            found = Sum()
        else:
            found = before if before.is_whole or not is_end else self._sum_up_to(start, before)
        at = start
        try:
            for piece in self._source.read(start, stop):
                if at <= found.length <= at + len(piece) and not found.is_whole:
                    found = found.followed_by(piece, at)
                at += len(piece)
                yield piece
        finally:
            if found.length > before.length:
                self._sums.put(self.name, found)
        wanted = size if is_end else stop
        if wanted is not None and at != wanted:
            raise OSError(f"{self.name}: {at} bytes instead of {wanted}")
        if is_end:
            self._sent = at
            self._sums.put(self.name, Sum(found.checksum, at, is_whole=True))

    def must_read(self, start: int) -> bool:
        """Whether bytes before `start` have to be read for the checksum."""
        known = self._known()
        return not known.is_whole and known.length < start

    def _known(self) -> Sum:
        """What is kept of the checksum, unless it is of a file of another length."""
        found, size = self._sums.get(self.name) or Sum(), self.size
        if size is not None and (found.length > size or (found.is_whole and found.length < size)):
            return Sum()
        return found

    def checksum(self) -> int:
        found = self._known()
        if not found.is_whole:
            size = self.size or 0
            found = Sum(self._sum_up_to(size, found).checksum, size, is_whole=True)
            self._sums.put(self.name, found)
        return found.checksum

    def _sum_up_to(self, stop: int, found: Sum) -> Sum:
        if found.length >= stop:
            return found
        kept = found.length
        with self._turn() as turn:
            for piece in self._source.read(found.length, stop):
                found = found.followed_by(piece, found.length)
                if found.length - kept >= KEPT_EVERY:  # for the next one, if this reader goes
                    self._sums.put(self.name, found)
                    kept = found.length
                if turn is not None:
                    turn.share()
        return found


@dataclass(frozen=True)
class _Descriptor:
    """What stands behind a member: its checksum and its length (4.3.9)."""

    member: Member

    @property
    def size(self) -> int:
        return 24 if self.member.is_long else 16

    def read(self, start: int, stop: int | None) -> Iterator[bytes]:
        form = "<4sLQQ" if self.member.is_long else "<4sLLL"
        length = self.member.size
        yield struct.pack(form, b"PK\7\10", self.member.checksum(), length, length)[start:stop]


@dataclass(frozen=True)
class _Directory:
    """The directory of all members, and the records of its end (4.3.12 to 4.3.16)."""

    members: list[Member]
    modified: tuple[int, int]

    @property
    def size(self) -> int | None:
        if any(member.size is None for member in self.members):
            return None
        return len(self._records([0] * len(self.members)))

    def read(self, start: int, stop: int | None) -> Iterator[bytes]:
        yield self._records([member.checksum() for member in self.members])[start:stop]

    def _records(self, checksums: list[int]) -> bytes:
        entries, at = b"", 0
        for member, checksum in zip(self.members, checksums, strict=True):
            entries += _entry(member, self.modified, checksum, at)
            at += len(_header(member, self.modified)) + (member.size or 0)
            at += _Descriptor(member).size
        count, end = len(self.members), b""
        if at > MOST:
            version = ZIP64_VERSION
            fields = (44, version, version, 0, 0, count, count, len(entries), at)
            end = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", *fields)
            end += struct.pack("<4sLQL", b"PK\6\7", 0, at + len(entries), 1)
        last = (0, 0, count, count, len(entries), min(at, MOST), 0)
        return entries + end + struct.pack("<4sHHHHLLH", b"PK\5\6", *last)


class ZipArchive:
    """A byte source of members in their order, with the records around them.

    Args:
        modified: the time that every member bears, as it is in its own time zone.
    """

    def __init__(self, members: list[Member], modified: datetime) -> None:
        year = min(max(modified.year, FIRST_YEAR), LAST_YEAR)
        date = (year - FIRST_YEAR) << 9 | modified.month << 5 | modified.day
        time = modified.hour << 11 | modified.minute << 5 | modified.second // 2
        self._parts: list[ByteSource] = []
        for member in members:
            header = InMemory(_header(member, (time, date)))
            self._parts += [header, member, _Descriptor(member)]
        self._parts.append(_Directory(members, (time, date)))

    @property
    def size(self) -> int | None:
        sizes = [part.size for part in self._parts]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None

    def members_to_read(self, start: int, stop: int) -> int:
        """Of how many members bytes before `start` have to be read, for their checksums."""
        number, at, checksums_end = 0, 0, stop > (self.size or 0) - (self._parts[-1].size or 0)
        for part in self._parts:
            end = at + (part.size or 0)
            if isinstance(part, Member) and at < start:
                descriptor = _Descriptor(part).size
                if checksums_end or (start < end + descriptor and stop > end):
                    number += part.must_read(min(start, end) - at)
            at = end
        return number

    def read(self, start: int, stop: int | None) -> Iterator[bytes]:
        """The bytes from `start` up to `stop`, or to the end; another range than all of them only
        where `size` is known.

        Raises:
            OSError: a member cannot be read, or changed.
        """
        at = 0
        for part in self._parts:
            if stop is not None and at >= stop:
                return
            size = part.size
            if size is None:
                yield from part.read(0, None)
            elif start < at + size:
                last = size if stop is None else min(size, stop - at)
                yield from part.read(max(0, start - at), last)
            at += part.size or 0


def _name(member: Member) -> tuple[bytes, int]:
    """A member's name, and the flags of its records."""
    flag = 0 if member.name.isascii() else NAME_IS_UTF8
    return member.name.encode(), CHECKSUM_FOLLOWS | flag


def _header(member: Member, modified: tuple[int, int]) -> bytes:
    """The record before a member (4.3.7), without its length and checksum."""
    name, flags = _name(member)
    version, later = (ZIP64_VERSION, MOST) if member.is_long else (PLAIN_VERSION, 0)
    extra = struct.pack("<HHQQ", 1, 16, 0, 0) if member.is_long else b""
    fields = (version, flags, 0, *modified, 0, later, later, len(name), len(extra))
    return struct.pack("<4sHHHHHLLLHH", b"PK\3\4", *fields) + name + extra


def _entry(member: Member, modified: tuple[int, int], checksum: int, at: int) -> bytes:
    """A member's entry in the directory (4.3.12); what needs 64 bits comes last (4.5.3)."""
    name, flags = _name(member)
    size = member.size or 0
    long = [size, size] if member.is_long else []
    if at > MOST:
        long.append(at)
    extra = struct.pack(f"<HH{len(long)}Q", 1, 8 * len(long), *long) if long else b""
    version = ZIP64_VERSION if long else PLAIN_VERSION
    shown = MOST if member.is_long else size
    head = (MADE_ON_UNIX | version, version, flags, 0, *modified, checksum, shown, shown)
    rest = (len(name), len(extra), 0, 0, 0, ATTRIBUTES, min(at, MOST))
    return struct.pack("<4sHHHHHHLLLHHHHHLL", b"PK\1\2", *head, *rest) + name + extra
