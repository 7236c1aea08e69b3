"""Reading any accepted audio file, frame by frame, through PyAV. Files are hostile until read.

The demuxer and protocol lists are handed to FFmpeg itself, so that a playlist, a concat script or
a container that points elsewhere is refused before anything it names is opened. What a file is
counts by what the demuxers find in it, never by its name: FFmpeg is not even told one, it gets an
open file.
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

from separations.audio.accepted import (
    DECODERS,
    DEMUXERS,
    HIGHEST_RATE,
    LOWEST_RATE,
    MOST_CHANNELS,
    MOST_STREAMS,
)
from separations.faults import Fault

# More unreadable packets than one in this many, and what is left is no longer the song.
TOLERATED_DAMAGE = 20


@dataclass
class Source:
    """An open file: its first audio stream and what was met while decoding it."""

    container: InputContainer
    stream: AudioStream
    # FFmpeg guesses a length from the bit rate where the file states none; a guess proves nothing.
    length_is_stated: bool
    good: int = field(default=0)
    bad: int = field(default=0)

    @property
    def stated_seconds(self) -> float | None:
        """Length in seconds that the file claims, None where it claims none."""
        if not self.length_is_stated or self.container.duration is None:
            return None
        return self.container.duration / av.time_base

    def frames(self) -> Iterator[av.AudioFrame]:
        """Decoded frames in order. A damaged packet is skipped; too many are a Fault."""
        rate, layout = self.stream.codec_context.sample_rate, ""
        for packet in self.container.demux(self.stream):
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                self.bad += 1
                continue
            self.good += 1
            for frame in frames:
                if not isinstance(frame, av.AudioFrame) or frame.samples == 0:
                    continue
                # Also where the container's word differs from the first frame's: lengths and
                # limits are reckoned with that.
                if frame.sample_rate != rate:
                    raise Fault("rate_changes")
                # Else the same samples could be those of another song: a row of left and right
                # is a mono song of twice the length.
                layout = layout or frame.layout.name
                if frame.layout.name != layout:
                    raise Fault("channels_change")
                if frame.layout.nb_channels > MOST_CHANNELS:
                    raise _too_many_channels(frame.layout.nb_channels)
                yield frame
        if self.bad >= self.good:
            raise Fault("not_audio")
        if self.bad * TOLERATED_DAMAGE > self.good:
            raise Fault("damaged")


@contextmanager
def open_source(file: int) -> Iterator[Source]:
    """Find the first audio stream of the open file with the descriptor `file`, read from its start.

    Raises:
        Fault: empty, not_audio, no_audio, absurd_rate or too_many_channels.
    """
    if os.fstat(file).st_size == 0:
        raise Fault("empty")
    os.lseek(file, 0, os.SEEK_SET)
    options = {
        "fd": str(file),
        "protocol_whitelist": "fd",
        "format_whitelist": ",".join(DEMUXERS),
        "codec_whitelist": ",".join(DECODERS),
        "max_streams": str(MOST_STREAMS),
        # Of the mov demuxer: no sound track that lies in another file.
        "enable_drefs": "0",
        "use_absolute_path": "0",
    }
    try:
        with av.logging.Capture() as log:
            container = av.open("fd:", options=options, metadata_errors="replace")
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
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise Fault("absurd_rate", rate=rate, lowest=LOWEST_RATE, highest=HIGHEST_RATE)
        if channels > MOST_CHANNELS:
            raise _too_many_channels(channels)
        guessed = any("Estimating duration" in message for _level, _name, message in log)
        yield Source(container, stream, length_is_stated=not guessed)
    finally:
        container.close()


def _too_many_channels(channels: int) -> Fault:
    return Fault("too_many_channels", channels=channels, most=MOST_CHANNELS)


def samples_of(frame: av.AudioFrame) -> NDArray[np.float32]:
    """The samples of a float frame: (channels, samples) if it is planar, (1, all) if packed."""
    return np.asarray(frame.to_ndarray(), np.float32)


class FloatFrames:
    """Turns decoded frames of any sample format into float32 arrays of shape (channels, samples).

    Full scale is ±1; float files keep what they hold beyond it.
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
