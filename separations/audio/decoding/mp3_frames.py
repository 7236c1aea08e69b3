"""Walk through an MP3's frames: where tags lie, where another MP3 is joined on, how long it says.

FFmpeg takes covers and tags behind the last frame for sound when it guesses a length, looks for
frames in them, and reads the frame that holds another MP3's length as silence. So it gets the
frames alone, and each of joined MP3s as one of its own, which it cuts to its true length. A part
begins with a frame that counts the others, and where the sample rate changes.
"""

import os
import re
from dataclasses import dataclass, field
from functools import lru_cache

from separations.audio.decoding.file_view import Range, size_of

# The first three bytes of a frame: eleven bits of sync, no reserved version or layer, and a bit
# rate and a sample rate that the tables have.
HEADER = re.compile(rb"\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff][^\x00-\x0f\xf0-\xff]", re.DOTALL)
V1_BITRATES = {  # of version 1 in kbit/s, by layer
    1: (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    2: (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
V2_BITRATES = {  # of versions 2 and 2.5
    1: (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
V1_RATES = (44_100, 48_000, 32_000)
SAME = 0xFFFE0C00  # sync, version, layer and sample rate
IN_A_ROW = 3  # frames that prove that a header is one, where nothing else says so
MOST_FRAMES = 1_000_000  # seven hours
MOST_PARTS = 500
ID3 = re.compile(rb"ID3[\x02-\x04][\x00-\x0f][\x00\x10\x20\x40\x80\xc0][\x00-\x7f]{4}", re.DOTALL)
BLOCK_BYTES = 1 << 20
NEXT_BYTES = 4096  # more than the longest frame


@dataclass
class Part:
    """One of the MP3s that a file is joined of, mostly the only one."""

    ranges: list[Range] = field(default_factory=list)  # without the tags in it and behind it
    seconds: float = 0.0  # of its frames
    rate: int = 0
    stated_seconds: float = 0.0  # by its first frame (Xing, Info or VBRI); 0 if it says nothing


@dataclass(frozen=True)
class Header:
    """A frame's header."""

    word: int
    size: int  # bytes of the frame
    rate: int
    samples: int
    is_mono: bool


def parts(file: int) -> list[Part]:
    """The MP3s that the open file is joined of; none if it is better read as it is."""
    return _Walk(file).run()


class _Walk:
    def __init__(self, file: int) -> None:
        self._file, self._end = file, size_of(file)
        self._block, self._first = b"", 0
        self._word = 0  # of the frame before
        self._parts = list[Part]()
        self._begun = 0  # where the current range begins
        self._front = 0  # where the tags at the front end, which stay
        self._sound_end = 0  # of the frame before

    def run(self) -> list[Part]:
        place = total = 0
        while place < self._end:
            header = self._frame_at(place)
            if header is not None:
                self._add(place, header)
                total += 1
                if total > MOST_FRAMES or len(self._parts) > MOST_PARTS:
                    return []
                place += header.size
            elif tag := self._tag_at(place):
                if self._parts:
                    self._end_range(self._sound_end)
                    self._begun = place + tag
                elif place == self._front:
                    self._front += tag
                place += tag
            else:
                place = self._next_header(place)
        self._end_range(self._sound_end)
        return [part for part in self._parts if part.seconds]

    def _look(self, place: int, size: int) -> bytes:
        if not self._first <= place <= self._first + len(self._block) - size:
            self._block, self._first = os.pread(self._file, BLOCK_BYTES, place), place
        return self._block[place - self._first : place - self._first + size]

    def _tag_at(self, place: int) -> int:
        """Bytes of the tag that begins there, 0 if none does."""
        head = self._look(place, 32)
        size = 0
        if ID3.match(head):
            size = sum(
                byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True)
            )
            size += 20 if head[5] & 0x10 else 10
        elif head[:8] == b"APETAGEX" and len(head) == 32:
            is_header = head[23] & 0x20  # else the footer, whose content was passed already
            size = 32 + (int.from_bytes(head[12:16], "little") if is_header else 0)
        elif head[:3] == b"TAG":
            size = 128
        return size if place + size <= self._end else 0

    def _frame_at(self, place: int) -> Header | None:
        """The frame that begins there; None if none does."""
        header = read_header(self._look(place, 4))
        if header is None:
            return None
        if place == self._sound_end and header.word & SAME == self._word & SAME:
            return header
        # The first one, one that differs, or one behind something else: others must follow it.
        after = place + header.size
        for _ in range(IN_A_ROW):
            if after == self._end or self._tag_at(after):
                break
            following = read_header(self._look(after, 4))
            if following is None or following.word & SAME != header.word & SAME:
                return None
            after += following.size
        return header

    def _next_header(self, place: int) -> int:
        """The next place where a frame or a tag may begin."""
        self._look(place, NEXT_BYTES)
        here = place + 1 - self._first
        found = _NEXT.search(self._block, here)
        if found:
            return self._first + found.start()
        return max(place + 1, self._first + len(self._block) - 8)

    def _add(self, place: int, header: Header) -> None:
        stated = stated_frames(self._look(place, min(header.size, 200)), header)
        # FFmpeg finds another rate a frame too late.
        changes = header.word & SAME != self._word & SAME
        if stated is not None or changes or not self._parts:
            self._end_range(self._sound_end if self._parts else self._front)
            self._parts.append(Part([] if self._parts or not self._front else [(0, self._front)]))
            self._begun, self._parts[-1].rate = place, header.rate
        if stated is not None:
            self._parts[-1].stated_seconds = stated * header.samples / header.rate
        else:
            self._parts[-1].seconds += header.samples / header.rate
        self._word, self._sound_end = header.word, min(self._end, place + header.size)

    def _end_range(self, end: int) -> None:
        if self._parts and end > self._begun:
            self._parts[-1].ranges.append((self._begun, end))
            self._begun = end


_NEXT = re.compile(HEADER.pattern + rb"|ID3|APETAGEX|TAG", re.DOTALL)


@lru_cache(maxsize=1024)
def read_header(head: bytes) -> Header | None:
    """The header of a frame (ISO/IEC 11172-3, 2.4.1.3, and 13818-3); None if it is none."""
    if len(head) < 4 or not HEADER.match(head) or head[2] >> 2 & 3 == 3:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bitrate, padding = head[2] >> 4, head[2] >> 1 & 1
    rate = V1_RATES[head[2] >> 2 & 3] >> {3: 0, 2: 1, 0: 2}[version]
    table = V1_BITRATES[layer] if version == 3 else V2_BITRATES[min(layer, 2)]
    bits = table[bitrate - 1] * 1000
    samples = {1: 384, 2: 1152, 3: 1152 if version == 3 else 576}[layer]
    slot = 4 if layer == 1 else 1
    size = (samples // 8 // slot * bits // rate + padding) * slot
    return Header(int.from_bytes(head, "big"), size, rate, samples, head[3] >> 6 == 3)


def stated_frames(frame: bytes, header: Header) -> int | None:
    """The number of frames that follow, if the frame holds one instead of sound.

    Returns:
        None for a frame of sound; 0 where the number is left out.
    """
    is_version_1 = header.samples == 1152
    side = (17 if header.is_mono else 32) if is_version_1 else (9 if header.is_mono else 17)
    mark = frame[4 + side : 8 + side]
    if mark in (b"Xing", b"Info"):
        has_number = int.from_bytes(frame[8 + side : 12 + side], "big") & 1
        return int.from_bytes(frame[12 + side : 16 + side], "big") if has_number else 0
    if frame[36:40] == b"VBRI":
        return int.from_bytes(frame[50:54], "big")
    return None
