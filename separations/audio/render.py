"""Stems and mixes in the formats people download.

WAV has a known place for every sample, so any byte range of it is made when it is asked for. The
compressed formats are encoded whole, into a file.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from separations.audio.formats import Format, Tags
from separations.audio.info import CHANNELS, SAMPLE_RATE
from separations.audio.readers import Reader


def common_gain(peaks: list[float]) -> float:
    """The one gain that keeps every stem of a track within full scale, 1 where none exceeds it."""
    return 1.0 / max(1.0, *peaks)


def _header(format: Format, frames: int, tags: Tags) -> bytes:
    """RIFF/WAVE header (Microsoft Multimedia Standards Update, 1994: PCM, or float with `fact`).

    The tags stand before the samples, as FFmpeg writes them, so that nothing comes after these.
    """
    width = format.bytes_per_sample
    align = width * CHANNELS
    data = frames * align
    is_float = format.keeps_overs
    fmt = struct.pack(
        "<HHIIHH",
        3 if is_float else 1,
        CHANNELS,
        SAMPLE_RATE,
        SAMPLE_RATE * align,
        align,
        width * 8,
    )
    chunks = _chunk(b"fmt ", fmt)
    if is_float:
        chunks += _chunk(b"fact", struct.pack("<I", frames))
    texts = ((b"INAM", tags.title), (b"IART", tags.artist))
    info = b"".join(_chunk(name, text.encode() + b"\0") for name, text in texts if text)
    if info:
        chunks += _chunk(b"LIST", b"INFO" + info)
    chunks += b"data" + struct.pack("<I", data)
    return b"RIFF" + struct.pack("<I", 4 + len(chunks) + data) + b"WAVE" + chunks


def _chunk(name: bytes, content: bytes) -> bytes:
    """A RIFF chunk; one of odd length is followed by a byte that its length does not count."""
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def _pack(samples: NDArray[np.float32], format: Format) -> bytes:
    """Samples of shape (n, 2) as little-endian words, rounded to nearest and held at full scale."""
    if format.keeps_overs:
        return samples.astype("<f4").tobytes()
    full = 1 << (8 * format.bytes_per_sample - 1)
    words = np.clip(np.rint(samples.astype(np.float64) * full), -full, full - 1).astype("<i4")
    if format.bytes_per_sample == 2:
        return words.astype("<i2").tobytes()
    return np.ascontiguousarray(words.reshape(-1, 1).view(np.uint8)[:, :3]).tobytes()


class WavView:
    """Samples seen as a WAV file that is not there: `size` bytes, readable from anywhere.

    `gain` is applied to every sample.
    """

    def __init__(self, reader: Reader, format: Format, gain: float, tags: Tags) -> None:
        self._reader, self._format = reader, format
        self._gain = np.float32(gain)
        self._head = _header(format, reader.frames, tags)
        self._align = format.bytes_per_sample * CHANNELS
        self.size = len(self._head) + reader.frames * self._align

    def read(self, start: int, stop: int | None) -> Iterator[bytes]:
        """The bytes from `start` up to `stop`, or to the end, piece by piece."""
        stop = self.size if stop is None else stop
        if start < len(self._head):
            yield self._head[start:stop]
            start = len(self._head)
        if start >= stop:
            return
        first, skipped = divmod(start - len(self._head), self._align)
        last = -(-(stop - len(self._head)) // self._align)
        left = stop - start
        for block in self._reader.read(first, min(last, self._reader.frames)):
            data = _pack(block * self._gain, self._format)[skipped:][:left]
            skipped = 0
            left -= len(data)
            yield data


def write(
    reader: Reader, target: Path, format: Format, gain: float, tags: Tags, bit_rate: int
) -> None:
    """Write all that `reader` gives as the new file `target`.

    Args:
        gain: applied to every sample.
        bit_rate: in kbit/s, one of the format's, if it has any.

    Raises:
        OSError: the file cannot be written.
    """
    if format.bytes_per_sample:
        view = WavView(reader, format, gain, tags)
        with target.open("wb") as file:
            file.writelines(view.read(0, view.size))
        return
    from separations.audio.encode import encode  # FFmpeg, which most processes never need

    level = np.float32(gain)
    blocks = (block * level for block in reader.read(0, reader.frames))
    encode(blocks, reader.frames, target, format, tags, bit_rate)


def size_of(reader: Reader, format: Format, tags: Tags, bit_rate: int) -> int | None:
    """How many bytes `write` will write in a compressed format, None where nobody knows before."""
    from separations.audio.encode import size_of

    return size_of(reader.frames, format, tags, bit_rate)
