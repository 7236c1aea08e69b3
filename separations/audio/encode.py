"""Encoders, fed block by block: FLAC and MP3 by libsndfile, AAC and Opus by FFmpeg.

libsndfile could write Opus as well, but dies of one long write to an Ogg file, and knows no AAC.
"""

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Protocol, cast

import av
import numpy as np
import soundfile
from av.audio.stream import AudioStream

from separations.audio.formats import Format, Tags
from separations.audio.info import CHANNELS, SAMPLE_RATE
from separations.audio.readers import Samples
from separations.audio.stems import disk_errors

MP3_HIGHEST, MP3_LOWEST = 320, 32  # kbit/s
SILENT_AT_THE_END = ("flac", "mp3")  # libsndfile does not tell of what it cannot write last
OPUS_RATE = 48_000  # what an Opus stream counts its samples in, always


class _Sink(Protocol):
    def write(self, block: Samples) -> object: ...


def encode(
    blocks: Iterable[Samples], target: Path, format: Format, tags: Tags, bit_rate: int
) -> None:
    """Write `blocks` as the new file `target`, in a format that has to be encoded whole.

    The number of samples is stated exactly in all of them: by MP3 and Opus as delay and padding,
    by M4A as an edit list. (FFmpeg's own decoder leaves an M4A's last packet whole all the same.)
    Opus holds its samples at 48 kHz.

    Raises:
        OSError: the file cannot be written.
    """
    frames = 0
    with disk_errors(target):
        with _open(target, format, tags, bit_rate) as file:
            for block in blocks:
                file.write(block)
                frames += len(block)
        if format.name in SILENT_AT_THE_END and not _has(target, frames):
            raise OSError(errno.EIO, f"{target.name} is cut off")


def _has(path: Path, frames: int) -> bool:
    """Whether all of so many samples can be read; looks at the last."""
    last = max(0, frames - SAMPLE_RATE)
    with soundfile.SoundFile(path) as file:
        file.seek(last)
        return len(file.read(2 * SAMPLE_RATE)) == frames - last


@contextmanager
def _open(target: Path, format: Format, tags: Tags, bit_rate: int) -> Iterator[_Sink]:
    match format.name:
        case "m4a":
            # Else the edit list, which says where the song ends, is rounded to milliseconds.
            # The index goes before the samples, so that players can begin without the whole file.
            options = {"movie_timescale": str(SAMPLE_RATE), "movflags": "+faststart"}
            with _FFmpegFile(target, "ipod", "aac", SAMPLE_RATE, tags, bit_rate, options) as ours:
                yield ours
        case "opus":
            with _FFmpegFile(target, "opus", "libopus", OPUS_RATE, tags, bit_rate, {}) as ours:
                yield ours
        case _:
            with _sound_file(target, format, bit_rate) as file:
                file.title = tags.title
                if tags.artist:  # libsndfile takes no empty text
                    file.artist = tags.artist
                yield file


def _sound_file(target: Path, format: Format, bit_rate: int) -> soundfile.SoundFile:
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


class _FFmpegFile:
    """A file that FFmpeg encodes and writes. It resamples by itself where the codec asks for it."""

    def __init__(
        self,
        target: Path,
        container: str,
        codec: str,
        rate: int,
        tags: Tags,
        bit_rate: int,
        options: dict[str, str],
    ) -> None:
        # Bit-exact: no random serial number, so that a file that is made again is the same file.
        options = {**options, "fflags": "+bitexact"}
        self._container = av.open(str(target), "w", format=container, options=options)
        texts = {"title": tags.title, "artist": tags.artist}
        self._container.metadata.update({name: text for name, text in texts.items() if text})
        stream = self._container.add_stream(codec, rate=rate, layout="stereo")
        self._stream = cast(AudioStream, stream)
        self._stream.bit_rate = bit_rate * 1000
        self._frames = 0

    def __enter__(self) -> "_FFmpegFile":
        return self

    def write(self, block: Samples) -> None:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block.T), "fltp", "stereo")
        frame.sample_rate = SAMPLE_RATE
        frame.pts, frame.time_base = self._frames, Fraction(1, SAMPLE_RATE)
        self._frames += len(block)
        self._container.mux(self._stream.encode(frame))

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        try:
            if kind is None:
                self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()
