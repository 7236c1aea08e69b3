"""Encode blocks of samples into a file: FLAC with libsndfile, MP3, AAC and Opus with FFmpeg.

The bytes of a growing file (`Format.grows`) never change once they are written, so that it can be
sent while the rest is encoded. An M4A file is finished as a whole: its index stands before the
samples and needs all of them. (Fragments would avoid that, but many players do not read them.)
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Protocol, assert_never, cast

import av
import numpy as np
from av.audio.stream import AudioStream

from separations.audio.encoding.flac import FlacFile
from separations.audio.encoding.formats import (
    ConstantRateMp3,
    FFmpegFile,
    Flac,
    Format,
    Wav,
)
from separations.audio.encoding.mp3 import CbrMp3
from separations.audio.encoding.tag_blocks import opus_comments, tag_mp4
from separations.audio.encoding.write_only import WriteOnly
from separations.audio.info import Tags
from separations.audio.store.readers import Samples
from separations.audio.store.stem_file import disk_errors


class _Sink(Protocol):
    def write(self, block: Samples) -> object: ...


def encode(
    blocks: Iterable[Samples],
    frames: int,
    rate: int,
    target: Path,
    format: Format,
    tags: Tags,
    bit_rate: int,
) -> None:
    """Write `blocks`, `frames` samples at `rate` Hz, as the new file `target`, compressed.

    The number of samples is stated exactly in all of them: by MP3 and Opus as delay and padding,
    by M4A as an edit list. (FFmpeg's own decoder leaves an M4A's last packet whole all the same.)
    Opus holds its samples at 48 kHz.

    Raises:
        OSError: the file cannot be written.
    """
    with disk_errors(target), _open(target, frames, rate, format, tags, bit_rate) as file:
        for block in blocks:
            file.write(block)


def size_of(frames: int, rate: int, format: Format, tags: Tags, bit_rate: int) -> int | None:
    """How many bytes `encode` will write; None where that depends on the samples."""
    is_constant = isinstance(format.encoder, ConstantRateMp3)
    return CbrMp3(frames, rate, tags, bit_rate).size if is_constant else None


@contextmanager
def _open(
    target: Path, frames: int, rate: int, format: Format, tags: Tags, bit_rate: int
) -> Iterator[_Sink]:
    match format.encoder:
        case Flac(bits):
            with _unbuffered(target) as file, FlacFile(file, frames, rate, tags, bits) as flac:
                yield flac
        case ConstantRateMp3():
            with (
                _unbuffered(target) as file,
                _Mp3File(file, CbrMp3(frames, rate, tags, bit_rate)) as mp3,
            ):
                yield mp3
        case FFmpegFile(moves_back=True) as made:
            with _Container(target, made, rate, {}, bit_rate) as container:
                yield container
            tag_mp4(target, tags)
        case FFmpegFile() as made:
            with (
                _unbuffered(target) as file,
                _Container(WriteOnly(file), made, rate, opus_comments(tags), bit_rate) as container,
            ):
                yield container
        case Wav():
            raise ValueError(f"{format.name} is made without an encoder")
        case other:
            assert_never(other)


def _unbuffered(target: Path) -> BinaryIO:
    return target.open("wb", buffering=0)


class _Mp3File:
    """MP3 at a constant bit rate, frame by frame."""

    def __init__(self, file: BinaryIO, layout: CbrMp3) -> None:
        self._file, self._layout, self._frames = WriteOnly(file), layout, 0
        self._written = 0
        self._codec = av.CodecContext.create("libmp3lame", "w")
        self._codec.sample_rate, self._codec.layout = layout.rate, "stereo"
        self._codec.format = av.AudioFormat("fltp")
        self._codec.bit_rate = 1000 * layout.bit_rate
        self._codec.time_base = Fraction(1, layout.rate)
        self._write(layout.head)

    def __enter__(self) -> "_Mp3File":
        return self

    def write(self, block: Samples) -> None:
        self._encode(_frame(block, self._frames, self._layout.rate))
        self._frames += len(block)

    def _encode(self, frame: av.AudioFrame | None) -> None:
        for packet in self._codec.encode(frame):
            self._write(bytes(packet))

    def _write(self, data: bytes) -> None:
        self._written += self._file.write(data)

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        if kind is None:
            self._encode(None)
            if self._written != self._layout.size:
                raise ValueError("an MP3 file of another size than its head states")


class _Container:
    """A file that FFmpeg encodes and writes. It resamples where the codec asks for another rate."""

    def __init__(
        self,
        target: Path | WriteOnly,
        made: FFmpegFile,
        rate: int,
        comments: dict[str, str],
        bit_rate: int,
    ) -> None:
        # Bit-exact: no random serial number, so that a file that is made again is the same file.
        options = {name: text.format(rate=rate) for name, text in made.options}
        options["fflags"] = "+bitexact"
        file = str(target) if isinstance(target, Path) else target
        self._container = av.open(file, "w", format=made.container, options=options)
        self._container.metadata.update(comments)
        stream = self._container.add_stream(made.codec, rate=made.rate_for(rate), layout="stereo")
        self._stream = cast(AudioStream, stream)
        if bit_rate:
            self._stream.bit_rate = bit_rate * 1000
        self._frames, self._rate = 0, rate

    def __enter__(self) -> "_Container":
        return self

    def write(self, block: Samples) -> None:
        self._container.mux(self._stream.encode(_frame(block, self._frames, self._rate)))
        self._frames += len(block)

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        try:
            if kind is None:
                self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()


def _frame(block: Samples, start: int, rate: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block.T), "fltp", "stereo")
    frame.sample_rate = rate
    frame.pts, frame.time_base = start, Fraction(1, rate)
    return frame
