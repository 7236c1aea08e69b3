"""Render stems and mixes in the download formats.

In WAV the position of every sample is known, so any range of bytes is made on request. Compressed
formats are encoded as a whole, into a file.
"""

import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from separations.audio.encoding.formats import Format, Wav
from separations.audio.info import CHANNELS, Tags
from separations.audio.store.readers import Reader

HEAD_BYTES = 1 << 16  # more than headers and tags have, without the cover
NOT_HERE = 0xFFFFFFFF  # RF64, instead of a size: it stands in the chunk ds64
MOST_RIFF = NOT_HERE - 1
DS64_BYTES = 8 + 28


def common_gain(peaks: list[float]) -> float:
    """The one gain that keeps every stem of a track within full scale, 1 where none exceeds it."""
    return 1.0 / max(1.0, *peaks)


def gain_db(gain: float) -> float:
    """A gain in decibels, to two decimals."""
    return round(20 * math.log10(gain), 2) + 0.0  # not -0.0


def _header(wav: Wav, frames: int, rate: int, tags: Tags, tail_bytes: int) -> bytes:
    """RIFF/WAVE header (Microsoft Multimedia Standards Update, 1994: PCM, or float with `fact`).

    The tags that RIFF knows stand before the samples, as FFmpeg writes them; all of them, with the
    cover, follow the samples (`tail_bytes`) as ID3, where taggers write it. What exceeds the 4 GiB
    that RIFF can state is RF64 (EBU Tech 3306): the same, with longer sizes in front.
    """
    width = wav.bytes_per_sample
    align = width * CHANNELS
    data = frames * align
    fmt = struct.pack(
        "<HHIIHH",
        3 if wav.is_float else 1,
        CHANNELS,
        rate,
        rate * align,
        align,
        width * 8,
    )
    chunks = _chunk(b"fmt ", fmt)
    if wav.is_float:
        chunks += _chunk(b"fact", struct.pack("<I", min(frames, NOT_HERE)))
    info = b"".join(_chunk(name, text.encode() + b"\0") for name, text in _info(tags) if text)
    if info:
        chunks += _chunk(b"LIST", b"INFO" + info)
    whole = 4 + len(chunks) + 8 + data + tail_bytes
    if whole <= MOST_RIFF:
        sizes, stated, name = b"", data, b"RIFF"
    else:
        whole += DS64_BYTES
        sizes = _chunk(b"ds64", struct.pack("<QQQI", whole, data, frames, 0))
        whole, stated, name = NOT_HERE, NOT_HERE, b"RF64"
    head = name + struct.pack("<I", whole) + b"WAVE"
    return head + sizes + chunks + b"data" + struct.pack("<I", stated)


def _info(tags: Tags) -> tuple[tuple[bytes, str], ...]:
    """The texts of the chunk LIST INFO."""
    return (
        (b"INAM", tags.title),
        (b"IART", tags.artist),
        (b"IPRD", tags.album),
        (b"ITRK", str(tags.track or "")),
        (b"ICRD", str(tags.year or "")),
        (b"IGNR", tags.genre),
    )


def _tail(frames: int, align: int, tags: Tags) -> bytes:
    """What follows the samples: a chunk of ID3."""
    from separations.audio.encoding.tag_blocks import id3  # which few processes need

    padding = bytes(frames * align % 2)
    return padding + (_chunk(b"id3 ", id3(tags)) if tags != Tags() else b"")


def _chunk(name: bytes, content: bytes) -> bytes:
    """A RIFF chunk; one of odd length is followed by a byte that its length does not count."""
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def _pack(samples: NDArray[np.float32], wav: Wav) -> bytes:
    """Samples of shape (n, 2) as little-endian words, rounded to nearest, clipped at full scale."""
    if wav.is_float:
        return samples.astype("<f4").tobytes()
    full = 1 << (8 * wav.bytes_per_sample - 1)
    words = np.clip(np.rint(samples.astype(np.float64) * full), -full, full - 1).astype("<i4")
    if wav.bytes_per_sample == 2:
        return words.astype("<i2").tobytes()
    octets = words.reshape(-1, 1).view(np.uint8)[:, : wav.bytes_per_sample]
    return np.ascontiguousarray(octets).tobytes()


class WavBytes:
    """The bytes of a WAV file, made on request: `size` of them, readable from any byte on.

    `gain` is applied to every sample.
    """

    def __init__(self, reader: Reader, wav: Wav, gain: float, tags: Tags) -> None:
        self._reader, self._wav = reader, wav
        self._gain = np.float32(gain)
        self._align = wav.bytes_per_sample * CHANNELS
        self._tail = _tail(reader.frames, self._align, tags)
        self._head = _header(wav, reader.frames, reader.rate, tags, len(self._tail))
        self._end = len(self._head) + reader.frames * self._align  # of the samples
        self.size = self._end + len(self._tail)

    def read(self, start: int, stop: int | None) -> Iterator[bytes]:
        """The bytes from `start` up to `stop`, or to the end, piece by piece."""
        stop = self.size if stop is None else stop
        if start < len(self._head):
            yield self._head[start:stop]
            start = len(self._head)
        if start < min(stop, self._end):
            yield from self._samples(start, min(stop, self._end))
        if stop > self._end:
            yield self._tail[max(0, start - self._end) : stop - self._end]

    def _samples(self, start: int, stop: int) -> Iterator[bytes]:
        first, skipped = divmod(start - len(self._head), self._align)
        last = -(-(stop - len(self._head)) // self._align)
        left = stop - start
        for block in self._reader.read(first, min(last, self._reader.frames)):
            data = _pack(block * self._gain, self._wav)[skipped:][:left]
            skipped = 0
            left -= len(data)
            yield data


def write(
    reader: Reader, target: Path, format: Format, gain: float, tags: Tags, bit_rate: int
) -> None:
    """Write all samples of `reader` into the new file `target`.

    Args:
        gain: applied to every sample.
        bit_rate: in kbit/s, one of the format's, if it has any.

    Raises:
        OSError: the file cannot be written.
    """
    if format.wav is not None:
        view = WavBytes(reader, format.wav, gain, tags)
        with target.open("wb") as file:
            file.writelines(view.read(0, view.size))
        return
    from separations.audio.encoding.encoder import (
        encode,
    )  # FFmpeg, which most processes do not need

    level = np.float32(gain)
    blocks = (block * level for block in reader.read(0, reader.frames))
    encode(blocks, reader.frames, reader.rate, target, format, tags, bit_rate)


def size_of(reader: Reader, format: Format, tags: Tags, bit_rate: int) -> int | None:
    """How many bytes `write` will write in a compressed format, None if that is unknown before."""
    from separations.audio.encoding.encoder import size_of

    return size_of(reader.frames, reader.rate, format, tags, bit_rate)


def most_bytes(reader: Reader, format: Format, tags: Tags, bit_rate: int) -> int:
    """An upper bound of the bytes in a compressed format.

    Without a bit rate these are the samples in 24 bits, else what the bit rate makes and a tenth
    more for frames and index.
    """
    head = HEAD_BYTES + 2 * len(tags.cover)  # which base64 makes longer by a third
    if bit_rate:
        return head + int(1.1 * reader.frames / reader.rate * bit_rate * 125)
    return head + reader.frames * CHANNELS * 3
