"""Open a file or a part of it with PyAV, and choose the track that is the song. Files are hostile.

FFmpeg itself gets the lists of demuxers and protocols, so that it refuses a playlist, a concat
script, or a container that points elsewhere before it opens anything that they name. The demuxers
decide what a file is, never its name: FFmpeg gets an open file without one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import av
import av.logging
from av.audio.stream import AudioStream
from av.codec.context import Flags2
from av.container import InputContainer
from av.stream import Discard, Disposition

from separations.audio.decoding.allowed_codecs import (
    DECODERS,
    DEMUXERS,
    HIGHEST_RATE,
    LOWEST_RATE,
    MOST_CHANNELS,
    MOST_STREAMS,
)
from separations.audio.decoding.file_view import FileView
from separations.errors.fault import Fault

OPTIONS = {
    "protocol_whitelist": "none",
    "format_whitelist": ",".join(DEMUXERS),
    "codec_whitelist": ",".join(DECODERS),
    "max_streams": str(MOST_STREAMS),
    # For the mov demuxer: no sound track in another file.
    "enable_drefs": "0",
    "use_absolute_path": "0",
}


@dataclass(frozen=True)
class OpenPart:
    """An open container, and the track in it that is the song."""

    view: FileView
    container: InputContainer
    stream: AudioStream
    # Where a file states no length, FFmpeg guesses one from the bit rate, which proves nothing.
    is_length_guessed: bool

    @property
    def stated_seconds(self) -> float | None:
        """The track's length in seconds as the file states it, None if it states none."""
        if self.is_length_guessed:
            return None
        if self.stream.duration is not None and self.stream.time_base is not None:
            return float(self.stream.duration * self.stream.time_base)
        # Of the whole file. Its pictures may last longer than its sound.
        if self.container.duration is None or any(map(_is_film, self.container.streams.video)):
            return None
        return self.container.duration / av.time_base


@contextmanager
def open_container(view: FileView, name: str | None = None) -> Iterator["OpenContainer"]:
    """Open what `view` shows.

    Args:
        name: of the container's format where that is known.

    Raises:
        Fault: not_audio.
    """
    view.seek(0)
    try:
        with av.logging.Capture() as log:
            container = av.open(
                view, "r", format=name, options=OPTIONS, metadata_errors="surrogateescape"
            )
    except av.error.MemoryError:
        raise  # because of the sandbox's limit, not of the song's format
    except (av.error.FFmpegError, ValueError) as error:
        raise Fault("not_audio") from error
    try:
        guessed = any("Estimating duration" in message for _level, _name, message in log)
        yield OpenContainer(view, container, guessed)
    finally:
        container.close()


@dataclass(frozen=True)
class OpenContainer:
    """An open container, before its song was looked for."""

    view: FileView
    container: InputContainer
    is_length_guessed: bool

    @property
    def name(self) -> str:
        """FFmpeg's first name of the format, as in `allowed_codecs.CONTAINERS`."""
        return self.container.format.name.split(",")[0]

    def song(self) -> OpenPart:
        """The track that is the song.

        Raises:
            Fault: not_audio, no_audio, codec_not_read, absurd_rate or too_many_channels.
        """
        stream = _song(self.container)
        context = stream.codec_context
        context.thread_count = 1  # the sandbox has no threads
        if self.name == "caf" and context.name == "alac":
            # The last packet holds fewer samples, and FFmpeg would take their number off it again.
            context.flags2 |= Flags2.skip_manual
        rate, channels = stream.rate or 0, stream.channels or 0
        if rate == 0 or channels == 0:
            raise Fault("not_audio")
        check_form(rate, channels)
        for other in self.container.streams:
            if other.index != stream.index:
                other.discard = Discard.all
        return OpenPart(self.view, self.container, stream, self.is_length_guessed)


def _song(container: InputContainer) -> AudioStream:
    """The track that is marked default, else the first, of those that can be decoded."""
    tracks = container.streams.audio
    if not tracks:
        raise Fault("no_audio")
    # Sorting keeps the order of equals.
    for track in sorted(tracks, key=lambda each: not each.disposition & Disposition.default):
        if _codec(track) in DECODERS:
            return track
    raise Fault("codec_not_read", codec=_codec(tracks[0]) or "unknown")


def _codec(track: AudioStream) -> str:
    context = track.codec_context
    return context.name if context is not None else ""


def _is_film(pictures: av.VideoStream) -> bool:
    return not pictures.disposition & Disposition.attached_pic


def check_form(rate: int, channels: int) -> None:
    """Raises Fault (absurd_rate, too_many_channels) for what no song has."""
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise Fault("absurd_rate", rate=rate, lowest=LOWEST_RATE, highest=HIGHEST_RATE)
    if channels > MOST_CHANNELS:
        raise Fault("too_many_channels", channels=channels, most=MOST_CHANNELS)
