"""Read the chunks of WAV, RF64, W64, AIFF and CAF: where samples lie, and if some are missing.

Programs that write to a pipe cannot know a length beforehand and leave a placeholder in the header;
others are a few bytes off in the size of the whole. Only a data chunk that promises a definite
number of bytes shows that a file is cut off. FFmpeg gets the size that is there for a placeholder
that it would believe.
"""

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from separations.audio.decoding.file_view import FileView, Piece, size_of
from separations.audio.decoding.wav_format import as_caf, with_all_bits_valid

MOST_CHUNKS = 2_000  # before the samples; recorders write a dozen
# What may be missing: a recorder that counts its header with the samples, or the last block.
TOLERATED_SECONDS, TOLERATED_BYTES = 0.1, 4096
# Placeholders lie near these numbers: of 32 bits with and without a sign, of 64, and sox' own.
PLACEHOLDERS = (0x7F00_0000, 1 << 31, 1 << 32, 1 << 63, 1 << 64)
NEAR = 1 << 16
MOST_STATED = (1 << 31) - 1  # of 32 bits; more is negative to some of FFmpeg's demuxers
W64_GUID_END = bytes.fromhex("f3acd3118cd100c04f8edb8a")
W64_HEAD = b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000")
NAME = re.compile(rb"[A-Za-z][A-Za-z0-9_]{2}[A-Za-z0-9_ ]")
TAIL = re.compile(rb"(?:LIST|id3 |ID3 |bext|cue |smpl|iXML|_PMX)(.{4})", re.DOTALL)
LARGEST_TAIL = 1 << 20  # bytes of the file in which the last chunk is looked for
RIFFS = (b"RIFF", b"RIFX", b"RF64", b"BW64")


@dataclass(frozen=True)
class Chunk:
    """A chunk, and where its size stands: `extra` more than the content, in struct's `form`."""

    name: bytes
    start: int  # of the content
    size: int  # of the content, as stated
    size_place: int
    form: str
    extra: int = 0


@dataclass(frozen=True)
class Samples:
    """What a file with chunks says of its samples, and what FFmpeg is to read of it."""

    view: FileView
    missing_bytes: int = 0
    bytes_a_second: int = 0

    @property
    def is_cut(self) -> bool:
        """Whether the data chunk promises more than the file holds."""
        tolerated = max(TOLERATED_BYTES, self.bytes_a_second * TOLERATED_SECONDS)
        return self.missing_bytes > tolerated


def read_chunks(file: int) -> Samples | None:
    """What the chunks of the open file say; None for a file of another kind."""
    end, head = size_of(file), os.pread(file, 40, 0)
    found = _chunks(file, head, end)
    if found is None:
        return None
    order = ">" if head[:4] in (b"RIFX", b"FORM") else "<"
    pieces, rate, form, big = list[Piece]([(0, end)]), 0, b"", None
    for chunk in islice(found, MOST_CHUNKS):
        if chunk.name == b"data" and head[:4] in (b"RIFF", b"RIFX"):
            end = _end_of_samples(file, chunk, end)
            pieces = [
                each if isinstance(each, bytes) else (each[0], min(each[1], end)) for each in pieces
            ]
        if chunk.name == b"ds64":  # the samples' size in RF64, where the other is a placeholder
            size = int.from_bytes(os.pread(file, 8, chunk.start + 8), "little")
            big = Chunk(b"", chunk.start, size, chunk.start + 8, "<Q")
        elif chunk.name in (b"fmt ", b"COMM", b"desc"):
            form = os.pread(file, 40, chunk.start)
            rate = _byte_rate(chunk.name, form, order)
            pieces = with_all_bits_valid(form, order, chunk.start, end) or pieces
        elif chunk.name in (b"data", b"SSND"):
            stated = chunk if chunk.size != 0xFFFFFFFF or big is None else big
            if head[:4] == b"RIFX":
                size = end if is_placeholder(chunk.size) else chunk.start + chunk.size
                pieces = as_caf(form, (chunk.start, min(end, size))) or pieces
            return _samples(file, pieces, stated, chunk.start, rate)
    return Samples(FileView(file, pieces))


def _samples(file: int, pieces: list[Piece], size: Chunk, start: int, rate: int) -> Samples:
    present = size_of(file) - start
    # Four gigabytes more than 32 bits can say leave the rest.
    has_wrapped = size.form[1] == "I" and present >= 1 << 32
    if not is_placeholder(size.size) and not has_wrapped:
        return Samples(FileView(file, pieces), size.size - present, rate)
    # FFmpeg itself reads a WAV with a placeholder to its end.
    if pieces == [(0, size_of(file))] and (size.form != "<I" or has_wrapped):
        most = MOST_STATED if size.form[1] == "I" else present + size.extra
        found = 0 if size.form == "<I" else min(present + size.extra, most)
        stated = struct.pack(size.form, found)
        pieces = [(0, size.size_place), stated, (size.size_place + len(stated), size_of(file))]
    return Samples(FileView(file, pieces))


def _end_of_samples(file: int, data: Chunk, end: int) -> int:
    """Where the samples end at most, whose size is unknown or a little too large."""
    if not is_placeholder(data.size) and data.size <= end - data.start:
        return end
    order, place = data.form[0], data.start
    if data.size == 0:  # there are none if whole chunks follow up to the end
        for chunk in islice(_riff_chunks(file, end, order, data.start), MOST_CHUNKS):
            if not NAME.fullmatch(chunk.name):
                break
            place = chunk.start + chunk.size
            if place == end or place + 1 == end:
                return data.start
    tail_at = max(data.start, end - LARGEST_TAIL)
    tail = os.pread(file, LARGEST_TAIL, tail_at)
    for mark in TAIL.finditer(tail):
        (size,) = struct.unpack(order + "I", mark[1])
        if tail_at + mark.end() + size in (end, end - 1):
            return tail_at + mark.start()
    return end


def is_placeholder(size: int) -> bool:
    """Whether a size stands for "not known yet", as 0, 0xFFFFFFFF or 0x7FFFF000."""
    return size <= 8 or any(abs(size - number) <= NEAR for number in PLACEHOLDERS)


def _chunks(file: int, head: bytes, end: int) -> Iterator[Chunk] | None:
    if head[:16] == W64_HEAD:
        return _w64_chunks(file, end)
    if head[:4] == b"caff":
        return _caf_chunks(file, end)
    if head[:4] in RIFFS and head[8:12] == b"WAVE":
        return _riff_chunks(file, end, ">" if head[:4] == b"RIFX" else "<")
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _riff_chunks(file, end, ">")
    return None


def _riff_chunks(file: int, end: int, order: str, place: int = 12) -> Iterator[Chunk]:
    while place + 8 <= end:
        name, size = struct.unpack(order + "4sI", os.pread(file, 8, place))
        yield Chunk(name, place + 8, size, place + 4, order + "I")
        place += 8 + size + size % 2


def _w64_chunks(file: int, end: int) -> Iterator[Chunk]:
    """Sony Wave64: names are GUIDs, sizes have 64 bits and count their own 24 bytes."""
    place = 40
    while place + 24 <= end:
        head = os.pread(file, 24, place)
        size = int.from_bytes(head[16:], "little")
        name = head[:4] if head[4:16] == W64_GUID_END else b""
        yield Chunk(name, place + 24, max(0, size - 24), place + 16, "<Q", 24)
        place += max(24, size + -size % 8)


def _caf_chunks(file: int, end: int) -> Iterator[Chunk]:
    """Apple's Core Audio Format: sizes have 64 bits, all of them set for "up to the end"."""
    place = 8
    while place + 12 <= end:
        name, size = struct.unpack(">4sQ", os.pread(file, 12, place))
        yield Chunk(name, place + 12, size, place + 4, ">Q")
        place += 12 + size


def _byte_rate(name: bytes, form: bytes, order: str) -> int:
    if name == b"fmt " and len(form) >= 16:
        rate: int = struct.unpack(order + "I", form[8:12])[0]
        return rate
    if name == b"COMM" and len(form) >= 18:
        channels, _frames, bits, exponent, mantissa = struct.unpack(">HIHHQ", form[:18])
        shift = 16383 + 63 - exponent  # of the rate, a float of 80 bits
        return int(mantissa >> shift) * int(channels * ((bits + 7) // 8)) if 0 < shift < 64 else 0
    if name == b"desc" and len(form) >= 28:  # the rate, and what is in a packet: bytes and frames
        samples, size, frames = struct.unpack(">d8xII", form[:24])
        return int(samples * size / frames) if frames and 0 < samples < 1e9 else 0
    return 0
