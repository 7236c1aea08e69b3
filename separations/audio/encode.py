"""Encoders, fed block by block: FLAC by libsndfile, MP3, AAC and Opus by FFmpeg.

What a growing file (`Format.grows`) has once stays as it is, so that it can be sent while the rest
is encoded. An M4A file is written whole: its index, which stands before the samples, needs all of
them. (It could be cut into fragments instead, but much of what people play it with knows none.)
"""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import av
import numpy as np
import soundfile
from av.audio.stream import AudioStream

from separations.audio.formats import Format, Tags
from separations.audio.info import CHANNELS, SAMPLE_RATE
from separations.audio.mp3 import CbrMp3
from separations.audio.readers import Samples
from separations.audio.stems import FLAC_HEAD, disk_errors

OPUS_RATE = 48_000  # what an Opus stream counts its samples in, always


class _Sink(Protocol):
    def write(self, block: Samples) -> object: ...


def encode(
    blocks: Iterable[Samples],
    frames: int,
    target: Path,
    format: Format,
    tags: Tags,
    bit_rate: int,
) -> None:
    """Write `blocks`, `frames` samples in all, as the new file `target` in a compressed format.

    The number of samples is stated exactly in all of them: by MP3 and Opus as delay and padding,
    by M4A as an edit list. (FFmpeg's own decoder leaves an M4A's last packet whole all the same.)
    Opus holds its samples at 48 kHz.

    Raises:
        OSError: the file cannot be written.
    """
    with disk_errors(target), _open(target, frames, format, tags, bit_rate) as file:
        for block in blocks:
            file.write(block)


def size_of(frames: int, format: Format, tags: Tags, bit_rate: int) -> int | None:
    """How many bytes `encode` will write; None where that depends on the samples."""
    return CbrMp3(frames, tags, bit_rate).size if format.name == "mp3" else None


@contextmanager
def _open(target: Path, frames: int, format: Format, tags: Tags, bit_rate: int) -> Iterator[_Sink]:
    if format.name == "m4a":
        # Else the edit list, which says where the song ends, is rounded to milliseconds.
        # The index goes before the samples, so that players can begin without the whole file.
        options = {"movie_timescale": str(SAMPLE_RATE), "movflags": "+faststart"}
        with _FFmpegFile(target, "ipod", "aac", SAMPLE_RATE, tags, bit_rate, options) as ours:
            yield ours
        return
    with target.open("wb", buffering=0) as file:
        match format.name:
            case "mp3":
                with _Mp3File(file, CbrMp3(frames, tags, bit_rate)) as mp3:
                    yield mp3
            case "opus":
                # Pages of a second go out as they are ready.
                options = {"flush_packets": "1"}
                with _FFmpegFile(
                    _WriteOnly(file), "opus", "libopus", OPUS_RATE, tags, bit_rate, options
                ) as opus:
                    yield opus
            case _:
                with _FlacFile(file, frames, tags) as flac:
                    yield flac


class _WriteOnly:
    """A file that nobody can go back in, and that takes all of what is written, or fails."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        whole = len(rest)
        while rest:
            rest = rest[self._file.write(rest) :]
        return whole


class _FlacFile:
    """FLAC in 24 bits that says from the start how long it is.

    libsndfile goes back at the end to state the MD5 of the samples too, and the sizes of the
    smallest and the largest frame. Here these stay 0, which means unknown (RFC 9639, 8.2).
    """

    def __init__(self, file: BinaryIO, frames: int, tags: Tags) -> None:
        self._output = _Once(file, frames)
        self._file = soundfile.SoundFile(
            self._output, "w", SAMPLE_RATE, CHANNELS, subtype="PCM_24", format="FLAC"
        )
        self._file.title = tags.title
        if tags.artist:  # libsndfile takes no empty text
            self._file.artist = tags.artist

    def __enter__(self) -> "_FlacFile":
        return self

    def write(self, block: Samples) -> None:
        self._file.write(block)
        self._output.check()

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        self._file.close()
        if kind is None:
            self._output.check()


class _Once(io.RawIOBase):
    """What libsndfile writes a FLAC file through: nothing that is written is changed again.

    libsndfile hears of no error in it; `check` raises the first.
    """

    def __init__(self, file: BinaryIO, frames: int) -> None:
        self._file, self._frames = _WriteOnly(file), frames
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
        if self._at < FLAC_HEAD <= self._at + len(piece):
            # STREAMINFO ends here: the last 36 of its bits but for the MD5 are the length.
            last = FLAC_HEAD - self._at
            stated = int.from_bytes(piece[last - 5 : last], "big") | self._frames
            piece = piece[: last - 5] + stated.to_bytes(5, "big") + piece[last:]
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


class _Mp3File:
    """MP3 at a constant bit rate, frame by frame."""

    def __init__(self, file: BinaryIO, layout: CbrMp3) -> None:
        self._file, self._layout, self._frames = _WriteOnly(file), layout, 0
        self._written = 0
        self._codec = av.CodecContext.create("libmp3lame", "w")
        self._codec.sample_rate, self._codec.layout = SAMPLE_RATE, "stereo"
        self._codec.format = av.AudioFormat("fltp")
        self._codec.bit_rate = 1000 * layout.bit_rate
        self._codec.time_base = Fraction(1, SAMPLE_RATE)
        self._write(layout.head)

    def __enter__(self) -> "_Mp3File":
        return self

    def write(self, block: Samples) -> None:
        self._encode(_frame(block, self._frames))
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


class _FFmpegFile:
    """A file that FFmpeg encodes and writes. It resamples by itself where the codec asks for it."""

    def __init__(
        self,
        target: Path | _WriteOnly,
        container: str,
        codec: str,
        rate: int,
        tags: Tags,
        bit_rate: int,
        options: dict[str, str],
    ) -> None:
        # Bit-exact: no random serial number, so that a file that is made again is the same file.
        options = {**options, "fflags": "+bitexact"}
        file = str(target) if isinstance(target, Path) else target
        self._container = av.open(file, "w", format=container, options=options)
        self._container.metadata.update(tags.texts)
        stream = self._container.add_stream(codec, rate=rate, layout="stereo")
        self._stream = cast(AudioStream, stream)
        self._stream.bit_rate = bit_rate * 1000
        self._frames = 0

    def __enter__(self) -> "_FFmpegFile":
        return self

    def write(self, block: Samples) -> None:
        self._container.mux(self._stream.encode(_frame(block, self._frames)))
        self._frames += len(block)

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        try:
            if kind is None:
                self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()


def _frame(block: Samples, start: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block.T), "fltp", "stereo")
    frame.sample_rate = SAMPLE_RATE
    frame.pts, frame.time_base = start, Fraction(1, SAMPLE_RATE)
    return frame
