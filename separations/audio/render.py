"""Stored stems in the formats people download.

WAV has a known place for every sample, so any byte range of it is made when it is asked for. The
compressed formats are encoded whole, into a file.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from separations.audio.formats import Format
from separations.audio.info import CHANNELS, SAMPLE_RATE
from separations.audio.stems import disk_errors, read_stem

MP3_HIGHEST, MP3_LOWEST = 320, 32  # kbit/s


@dataclass(frozen=True)
class Tags:
    title: str
    artist: str


def common_gain(peaks: list[float]) -> float:
    """The one gain that keeps every stem of a track within full scale, 1 where none exceeds it."""
    return 1.0 / max(1.0, *peaks)


def _header(format: Format, frames: int) -> bytes:
    """RIFF/WAVE header (Microsoft Multimedia Standards Update, 1994: PCM, or float with `fact`)."""
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
    chunks = b"fmt " + struct.pack("<I", len(fmt)) + fmt
    if is_float:
        chunks += b"fact" + struct.pack("<II", 4, frames)
    chunks += b"data" + struct.pack("<I", data)
    return b"RIFF" + struct.pack("<I", 4 + len(chunks) + data) + b"WAVE" + chunks


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
    """A stored stem seen as a WAV file that is not there: `size` bytes, readable from anywhere.

    `gain` is applied to every sample.
    """

    def __init__(self, path: Path, format: Format, frames: int, gain: float) -> None:
        self._path, self._format, self._frames = path, format, frames
        self._gain = np.float32(gain)
        self._head = _header(format, frames)
        self._align = format.bytes_per_sample * CHANNELS
        self.size = len(self._head) + frames * self._align

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` up to `stop`, piece by piece."""
        if start < len(self._head):
            yield self._head[start:stop]
            start = len(self._head)
        if start >= stop:
            return
        first, skipped = divmod(start - len(self._head), self._align)
        last = -(-(stop - len(self._head)) // self._align)
        left = stop - start
        for block in read_stem(self._path, first, min(last, self._frames)):
            data = _pack(block * self._gain, self._format)[skipped:][:left]
            skipped = 0
            left -= len(data)
            yield data


def write(
    source: Path,
    target: Path,
    format: Format,
    frames: int,
    gain: float,
    tags: Tags,
    bit_rate: int,
) -> None:
    """Write the stored stem `source` as the new file `target` (`bit_rate` in kbit/s, MP3).

    All formats keep the exact number of samples: MP3 states its delay and padding.

    Raises:
        OSError: the file cannot be written.
    """
    if format.bytes_per_sample:
        view = WavView(source, format, frames, gain)
        with target.open("wb") as file:
            file.writelines(view.read(0, view.size))
        return
    with disk_errors(target), _open_encoder(target, format, bit_rate) as file:
        file.title = tags.title
        if tags.artist:  # libsndfile takes no empty text
            file.artist = tags.artist
        for block in read_stem(source):
            file.write(block * np.float32(gain))


def _open_encoder(target: Path, format: Format, bit_rate: int) -> soundfile.SoundFile:
    if format.name == "flac":
        return soundfile.SoundFile(
            target, "w", SAMPLE_RATE, CHANNELS, subtype="PCM_24", format="FLAC"
        )
    # libsndfile spreads its 0..1 over the bit rates of MPEG-1 layer III, highest first.
    level = (MP3_HIGHEST - bit_rate) / (MP3_HIGHEST - MP3_LOWEST)
    return soundfile.SoundFile(
        target,
        "w",
        SAMPLE_RATE,
        CHANNELS,
        subtype="MPEG_LAYER_III",
        format="MP3",
        compression_level=level,
        bitrate_mode="CONSTANT",
    )
