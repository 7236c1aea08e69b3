"""Write FLAC with libsndfile, and what stands before its samples by ourselves.

libsndfile knows neither the length beforehand nor pictures, and not all texts.
"""

import io
import struct
from typing import Any, BinaryIO

import soundfile

from separations.audio.encoding.tag_blocks import comment_block, picture_block
from separations.audio.encoding.write_only import WriteOnly
from separations.audio.info import CHANNELS, Tags
from separations.audio.store.readers import Samples
from separations.audio.store.stem_file import FLAC_HEAD

# Blocks of FLAC's metadata: kind, length in 24 bits
FLAC_BLOCK = struct.Struct(">BBH")
LAST_BLOCK, STREAMINFO, VORBIS_COMMENT, PICTURE = 0x80, 0, 4, 6


class FlacFile:
    """FLAC whose head states the length from the start, and holds all tags and the cover.

    At the end libsndfile would also go back to state the MD5 of the samples, and the sizes of the
    smallest and the largest frame. Here these stay 0, which means unknown (RFC 9639, 8.2).
    """

    def __init__(self, file: BinaryIO, frames: int, rate: int, tags: Tags, bits: int) -> None:
        self._output = _Once(file, _FlacHead(frames, tags))
        self._file = soundfile.SoundFile(
            self._output, "w", rate, CHANNELS, subtype=f"PCM_{bits}", format="FLAC"
        )

    def __enter__(self) -> "FlacFile":
        return self

    def write(self, block: Samples) -> None:
        self._file.write(block)
        self._output.check()

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        self._file.close()
        if kind is None:
            self._output.check()


class _FlacHead:
    """What stands before the samples of a FLAC file (RFC 9639, 8), made from libsndfile's."""

    def __init__(self, frames: int, tags: Tags) -> None:
        self._frames, self._tags, self._given = frames, tags, bytearray()

    def take(self, piece: bytes) -> bytes:
        """Take libsndfile's next bytes; returns the new head, and what follows it, once it ends."""
        self._given += piece
        blocks = dict[int, bytes]()
        at, is_last = len(b"fLaC"), False
        while not is_last:
            block = FLAC_BLOCK.size + at
            if len(self._given) < block:
                return b""
            kind, high, low = FLAC_BLOCK.unpack_from(self._given, at)
            at, is_last = block + (high << 16 | low), bool(kind & LAST_BLOCK)
            if len(self._given) < at:
                return b""
            blocks[kind & ~LAST_BLOCK] = bytes(self._given[block:at])
        return self._made(blocks) + self._given[at:]

    def _made(self, given: dict[int, bytes]) -> bytes:
        about = given[STREAMINFO]
        start = FLAC_HEAD - len(b"fLaC") - FLAC_BLOCK.size
        # The last 36 of the bits before the MD5 are the length.
        stated = int.from_bytes(about[start - 5 : start], "big") | self._frames
        about = about[: start - 5] + stated.to_bytes(5, "big") + about[start:]
        vendor = given.get(VORBIS_COMMENT, b"")
        size = int.from_bytes(vendor[:4], "little")
        comments = comment_block(self._tags, vendor[4 : 4 + size].decode())
        blocks = [(STREAMINFO, about), (VORBIS_COMMENT, comments)]
        if self._tags.cover:
            blocks.append((PICTURE, picture_block(self._tags.cover)))
        head = b"fLaC"
        for kind, content in blocks:
            last = LAST_BLOCK if kind == blocks[-1][0] else 0
            size = len(content)
            head += FLAC_BLOCK.pack(kind | last, size >> 16, size & 0xFFFF) + content
        return head


class _Once(io.RawIOBase):
    """The file that libsndfile writes FLAC to: it ignores changes of what is written already.

    libsndfile does not pass on errors from here; `check` raises the first.
    """

    def __init__(self, file: BinaryIO, head: _FlacHead) -> None:
        self._file = WriteOnly(file)
        self._head: _FlacHead | None = head
        self._at = self._end = 0
        self._error: OSError | None = None

    def write(self, data: Any) -> int:
        piece = bytes(data)
        if self._at == self._end and self._error is None:
            try:
                self._append(piece)
            except OSError as error:
                self._error = error
        self._at += len(piece)
        self._end = max(self._end, self._at)
        return len(piece)

    def _append(self, piece: bytes) -> None:
        if self._head is not None:
            piece = self._head.take(piece)
            if not piece:
                return
            self._head = None
        self._file.write(piece)

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._end)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, _buffer: Any) -> int:
        return 0
