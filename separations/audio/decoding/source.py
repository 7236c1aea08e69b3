"""Read any accepted audio file frame by frame with PyAV. Files are hostile.

FFmpeg itself gets the lists of demuxers and protocols, so that it refuses a playlist, a concat
script, or a container that points elsewhere before it opens anything that they name. The demuxers
decide what a file is, never its name: FFmpeg gets an open file without one.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import av
import av.logging
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from numpy.typing import NDArray

from separations.audio.decoding.allowed_codecs import (
    DECODERS,
    DEMUXERS,
    HIGHEST_RATE,
    LOWEST_RATE,
    MOST_CHANNELS,
    MOST_STREAMS,
)
from separations.errors.fault import Fault

# With more unreadable packets than one in this many, the rest is no longer the song.
TOLERATED_DAMAGE = 20
MIN_SECONDS = 0.1


@dataclass
class Source:
    """An open file: its first audio stream, and how many packets could be decoded.

    rate, layout: of its first decoded frame, whatever the file's headers state, as decoders follow
    the frames.
    """

    container: InputContainer
    stream: AudioStream
    # Where a file states no length, FFmpeg guesses one from the bit rate, which proves nothing.
    length_is_stated: bool
    rate: int = field(init=False)
    layout: av.AudioLayout = field(init=False)
    good: int = field(default=0)
    bad: int = field(default=0)

    def __post_init__(self) -> None:
        """Decode up to the first frame. Raises Fault: what `frames` raises, or too_short."""
        self._decoded = self._decode()
        self._first = next(self._decoded, None)
        if self._first is None:
            raise Fault("too_short", min_seconds=MIN_SECONDS)
        self.rate, self.layout = self._first.sample_rate, self._first.layout
        _check_form(self.rate, self.layout.nb_channels)

    @property
    def stated_seconds(self) -> float | None:
        """The length in seconds that the file states, None if it states none."""
        if not self.length_is_stated or self.container.duration is None:
            return None
        return self.container.duration / av.time_base

    def frames(self) -> Iterator[av.AudioFrame]:
        """The decoded frames in order, once. A damaged packet is skipped; too many are a Fault."""
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        for frame in self._decoded:
            # Lengths, limits and the hash are computed with the first frame's.
            if frame.sample_rate != self.rate:
                raise Fault("rate_changes")
            # Else the same samples could be those of another song: a row of left and right is a
            # mono song of twice the length.
            if frame.layout.name != self.layout.name:
                raise Fault("channels_change")
            yield frame

    def _decode(self) -> Iterator[av.AudioFrame]:
        for packet in self.container.demux(self.stream):
            try:
                frames = packet.decode()
            except av.error.MemoryError:
                raise
            except av.error.FFmpegError:
                self.bad += 1
                continue
            self.good += 1
            for frame in frames:
                if isinstance(frame, av.AudioFrame) and frame.samples:
                    yield frame
        if self.bad >= self.good:
            raise Fault("not_audio")
        if self.bad * TOLERATED_DAMAGE > self.good:
            raise Fault("damaged")


def size_of(file: int) -> int:
    """Bytes of the open file with the descriptor `file`.

    By seeking: os.fstat may call newfstatat, which takes paths and is closed in the sandbox.
    """
    here = os.lseek(file, 0, os.SEEK_CUR)
    try:
        return os.lseek(file, 0, os.SEEK_END)
    finally:
        os.lseek(file, here, os.SEEK_SET)


@contextmanager
def open_source(file: int) -> Iterator[Source]:
    """Find the first audio stream of the open file with the descriptor `file`, read from its start.

    Raises:
        Fault: empty, not_audio, no_audio, absurd_rate, too_many_channels, damaged or too_short.
    """
    if size_of(file) == 0:
        raise Fault("empty")
    os.lseek(file, 0, os.SEEK_SET)
    options = {
        "fd": str(file),
        "protocol_whitelist": "fd",
        "format_whitelist": ",".join(DEMUXERS),
        "codec_whitelist": ",".join(DECODERS),
        "max_streams": str(MOST_STREAMS),
        # For the mov demuxer: no sound track in another file.
        "enable_drefs": "0",
        "use_absolute_path": "0",
    }
    try:
        with av.logging.Capture() as log:
            container = av.open("fd:", options=options, metadata_errors="surrogateescape")
    except av.error.MemoryError:
        raise  # because of the sandbox's limit, not of the song's format
    except (av.error.FFmpegError, ValueError) as error:
        raise Fault("not_audio") from error
    try:
        if not container.streams.audio:
            raise Fault("no_audio")
        stream = container.streams.audio[0]
        if stream.codec_context.name not in DECODERS:
            raise Fault("not_audio")
        stream.codec_context.thread_count = 1  # the sandbox has no threads
        rate, channels = stream.rate or 0, stream.channels or 0
        if rate == 0 or channels == 0:
            raise Fault("not_audio")
        _check_form(rate, channels)
        guessed = any("Estimating duration" in message for _level, _name, message in log)
        yield Source(container, stream, length_is_stated=not guessed)
    finally:
        container.close()


def _check_form(rate: int, channels: int) -> None:
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise Fault("absurd_rate", rate=rate, lowest=LOWEST_RATE, highest=HIGHEST_RATE)
    if channels > MOST_CHANNELS:
        raise Fault("too_many_channels", channels=channels, most=MOST_CHANNELS)


def samples_of(frame: av.AudioFrame) -> NDArray[np.float32]:
    """The samples of a float frame: (channels, samples) if it is planar, (1, all) if packed."""
    return np.asarray(frame.to_ndarray(), np.float32)


class FloatFrames:
    """Turns decoded frames of any sample format into float32 arrays of shape (channels, samples).

    Full scale is ±1; samples of float files may exceed it.
    """

    def __init__(self) -> None:
        self._resampler: av.AudioResampler | None = None
        self._shape: tuple[str, str] | None = None

    def convert(self, frame: av.AudioFrame) -> NDArray[np.float32]:
        """The frame's samples, shape (channels, samples)."""
        if frame.format.name == "fltp" and frame.layout.nb_channels <= 2:
            return samples_of(frame)
        shape = (frame.format.name, frame.layout.name)
        if self._resampler is None or self._shape != shape:
            self._resampler = av.AudioResampler("flt", frame.layout, frame.sample_rate)
            self._shape = shape
        frame.pts = None
        (packed,) = self._resampler.resample(frame)
        # Packed, because PyAV reads past the last plane of planar frames with eight channels.
        return samples_of(packed).reshape(-1, frame.layout.nb_channels).T
