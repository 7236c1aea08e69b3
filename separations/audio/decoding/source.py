"""Read any accepted file as one row of decoded frames, whatever it is joined of."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from numpy.typing import NDArray

from separations.audio.decoding import unread_kinds
from separations.audio.decoding.container import OpenContainer, OpenPart, check_form, open_container
from separations.audio.decoding.file_view import FileView, size_of
from separations.audio.decoding.last_frame import Decoded, without_padding
from separations.audio.decoding.parts import Parts, find_chunked_parts, find_parts
from separations.audio.decoding.stated_sizes import ends_before_index
from separations.errors.fault import Fault

# With more unreadable packets than one in this many, the rest is no longer the song.
TOLERATED_DAMAGE = 20
MIN_SECONDS = 0.1
# A file that states its length may fall short of it by encoder padding, not by more than this.
SHORTFALL_SECONDS, SHORTFALL_SHARE = 1.0, 0.01
# Of joined files, a last one with fewer bytes that cannot be read ended before its sound began.
SMALLEST_PART = 8_192


class Source:
    """An open file: its song, and how many packets could be decoded.

    container, container_name, stream: of its first part.
    rate, layout: of its first decoded frame, whatever the file's headers state, as decoders follow
        the frames; the rate of joined MP3s is the longest one's (`Parts.rate`).
    """

    def __init__(self, container_name: str, first: OpenPart, parts: Parts) -> None:
        """Decode up to the first frame. Raises Fault: what `frames` raises, or too_short."""
        self.container_name = container_name
        self.container: InputContainer = first.container
        self.stream: AudioStream = first.stream
        self._opened, self._parts = first, parts
        self._good = self._bad = 0
        self.values = self.highest_rate = 0  # samples of all channels, and Hz, decoded so far
        self.gave_up = False  # whether a part was left before its end
        self._decoded = self._decode()
        self._first = next(self._decoded, None)
        if self._first is None and (parts.is_cut or self.gave_up):
            raise Fault("truncated", read=0)
        if self._first is None:
            raise Fault("too_short", min_seconds=MIN_SECONDS)
        self.rate, self.layout = parts.rate or self._first.sample_rate, self._first.layout
        check_form(self.rate, self.layout.nb_channels)

    def is_cut(self, seconds: float) -> bool:
        """Whether the file's end is missing, of which so many seconds were decoded."""
        if self._parts.is_cut:
            return True
        lost = self._parts.lost_seconds
        stated = self._opened.stated_seconds
        if stated is not None and self._parts.proves_length:
            lost = stated - seconds
        return lost > max(SHORTFALL_SECONDS, SHORTFALL_SHARE * (seconds + lost))

    def frames(self) -> Iterator[av.AudioFrame]:
        """The decoded frames in order, once, at one sample rate; their channels may change.

        A damaged packet is skipped; too many are a Fault.
        """
        return at_rate(self._all(), self.rate)

    def _all(self) -> Iterator[av.AudioFrame]:
        if self._first is not None:
            first, self._first = self._first, None
            yield self._counted(first)
        for frame in self._decoded:
            check_form(frame.sample_rate, frame.layout.nb_channels)
            yield self._counted(frame)

    def _counted(self, frame: av.AudioFrame) -> av.AudioFrame:
        self.values += frame.samples * frame.layout.nb_channels
        self.highest_rate = max(self.highest_rate, frame.sample_rate)
        return frame

    def _decode(self) -> Iterator[av.AudioFrame]:
        yield from self._decode_part(self._opened)
        for view in self._parts.views[1:]:
            yield from self._decode_later_part(view)
        if self._bad >= self._good:
            raise Fault("not_audio")
        if self._bad * TOLERATED_DAMAGE > self._good:
            raise Fault("damaged")

    def _decode_part(self, part: OpenPart) -> Iterator[av.AudioFrame]:
        return without_padding(part.stream, self._decode_packets(part))

    def _decode_later_part(self, view: FileView) -> Iterator[av.AudioFrame]:
        with ExitStack() as opened:
            try:
                part = opened.enter_context(open_container(view, self.container_name)).song()
            except Fault as fault:
                if fault.code != "not_audio":
                    raise
                if view is self._parts.views[-1] and view.size < SMALLEST_PART:
                    return
                raise Fault("damaged") from fault
            yield from self._decode_part(part)

    def _decode_packets(self, part: OpenPart) -> Iterator[Decoded]:
        for packet in self._packets(part):
            try:
                frames = packet.decode()
            except av.error.MemoryError:
                raise
            except av.error.FFmpegError:
                self._bad += 1
                continue
            self._good += 1
            yield (
                packet,
                [each for each in frames if isinstance(each, av.AudioFrame) and each.samples],
            )

    def _packets(self, part: OpenPart) -> Iterator["av.Packet[AudioStream]"]:
        try:
            yield from part.container.demux(part.stream)
        except av.error.MemoryError:
            raise
        except av.error.FFmpegError:
            # FFmpeg gives up where it cannot go on: in a file that is cut or damaged.
            self.gave_up = True


@contextmanager
def open_source(file: int) -> Iterator[Source]:
    """Find the song in the open file with the descriptor `file`, read from its start.

    Raises:
        Fault: empty, not_audio, no_audio, codec_not_read, truncated, absurd_rate,
            too_many_channels, absurd_index, damaged or too_short.
    """
    if size_of(file) == 0:
        raise Fault("empty")
    whole = FileView.whole(file)
    parts = find_chunked_parts(file)
    with ExitStack() as opened:
        try:
            container = opened.enter_context(open_container(parts.views[0] if parts else whole))
        except Fault as fault:
            raise _reason(file, parts) or fault from fault
        if parts is None:
            parts = find_parts(file, container.name)
            if parts.views[0].pieces != whole.pieces:
                opened.close()
                container = opened.enter_context(open_container(parts.views[0], container.name))
        yield Source(_true_name(file, container), container.song(), parts)


def _true_name(file: int, container: OpenContainer) -> str:
    """The container's name; a RIFX is a WAV, though FFmpeg is shown one of Core Audio."""
    return "wav" if os.pread(file, 4, 0) == b"RIFX" else container.name


def _reason(file: int, parts: Parts | None) -> Fault | None:
    """Why FFmpeg cannot open a file that is one of sound nevertheless."""
    if ends_before_index(file) or (parts is not None and parts.is_cut):
        return Fault("truncated", read=0)
    kind = unread_kinds.kind_of(file)
    return Fault("codec_not_read", codec=kind) if kind else None


def at_rate(frames: Iterator[av.AudioFrame], rate: int) -> Iterator[av.AudioFrame]:
    """Resample frames of other rates to `rate`, as players do with what is joined of such files."""
    converter: av.AudioResampler | None = None
    form = None
    for frame in frames:
        now = (frame.sample_rate, frame.layout.name, frame.format.name)
        if now != form:
            if converter is not None:
                yield from converter.resample(None)
            other = frame.sample_rate != rate
            converter = av.AudioResampler("flt", frame.layout, rate) if other else None
            form = now
        if converter is None:
            yield frame
        else:
            frame.pts = None
            yield from converter.resample(frame)
    if converter is not None:
        yield from converter.resample(None)


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
