"""Find a song's facts by decoding all of it once, so that length and samples are certain.

This runs in the sandbox (`audio.sandbox.worker`), started by `audio.sandbox.decoder_process`.
"""

import hashlib

import av
import numpy as np

from separations.audio.decoding.source import MIN_SECONDS, FloatFrames, open_source
from separations.audio.decoding.tags import read_tags
from separations.audio.info import CHANNELS, AudioInfo
from separations.audio.level_limits import HIGHEST_LEVEL, check_song
from separations.errors.fault import Fault

# Samples of all channels in a second, on average over the longest song: 192 kHz in stereo, or
# 48 kHz in 7.1. A megabyte of silence may hold five times as many, a minute's work for a decoder.
SAMPLES_A_SECOND = 384_000


def probe(file: int, max_seconds: float) -> AudioInfo:
    """Decode an open file from beginning to end, for the facts about it.

    Args:
        file: its descriptor.

    Raises:
        Fault: whatever `open_source` raises, and too_long, too_short, truncated, not_finite,
            too_much_sound, too_loud or damaged.
    """
    frames = 0
    with open_source(file) as source:
        rate, identity = source.rate, _Identity(source.rate, source.layout)
        for frame in source.frames():
            frames += frame.samples
            if frames > max_seconds * rate:
                raise Fault("too_long", max_minutes=f"{max_seconds / 60:.3g}")
            if source.values > max_seconds * SAMPLES_A_SECOND:  # as they were decoded
                raise _too_much_sound(source.highest_rate, frame.layout.nb_channels, max_seconds)
            identity.add(frame)
        if source.is_cut(frames / rate):
            raise Fault("truncated", read=round(frames / rate))
        if source.gave_up:
            raise Fault("damaged")
        if frames < MIN_SECONDS * rate:
            raise Fault("too_short", min_seconds=MIN_SECONDS)
        container = source.container_name
        metadata = _metadata(container, source.container.metadata, source.stream.metadata)
        codec = source.stream.codec_context.name
    # After FFmpeg's memory is free again, in which it holds all covers.
    return AudioInfo(
        container=container,
        codec=codec,
        sample_rate=rate,
        channels=identity.most_channels,
        frames=frames,
        tags=read_tags(file, container, codec, metadata),
        samples_sha256=identity.digest(),
    )


def _metadata(container: str, whole: dict[str, str], track: dict[str, str]) -> dict[str, str]:
    """FFmpeg's metadata of the whole file and its track; only Ogg keeps a song's with the track."""
    if container == "ogg":
        return whole | track
    if container in ("matroska", "mov"):  # where it is a name such as "Stereo"
        track = {name: text for name, text in track.items() if name.lower() != "title"}
    return track | whole


class _Identity:
    """The hash of a song's samples, which checks their level as they come."""

    def __init__(self, rate: int, layout: av.AudioLayout) -> None:
        self._form = f"{rate}/{_name(layout)}"
        self._name = _name(layout)
        self.most_channels = layout.nb_channels
        self._samples, self._frames = hashlib.sha256(), 0
        self._changes = hashlib.sha256()  # of channels, on the way
        self._has_changed = False
        self._as_float = FloatFrames()

    def add(self, frame: av.AudioFrame) -> None:
        """Raises Fault: not_finite or too_loud."""
        name = _name(frame.layout)
        if name != self._name:
            self._name, self._has_changed = name, True
            self._changes.update(f"{self._frames}/{name};".encode())
            self.most_channels = max(self.most_channels, frame.layout.nb_channels)
        samples = self._as_float.convert(frame)
        check_song(samples, HIGHEST_LEVEL, from_double=frame.format.name.startswith("dbl"))
        # Interleaved, so that the identity does not depend on how the codec cuts its frames.
        self._samples.update(np.ascontiguousarray(samples.T).tobytes())
        self._frames += frame.samples

    def digest(self) -> str:
        """In hexadecimal. A row of left and right is not a mono song of twice the length."""
        found = self._samples.copy()
        found.update(self._form.encode())
        if not self._has_changed:
            return found.hexdigest()
        return hashlib.sha256(found.digest() + self._changes.digest()).hexdigest()


def _name(layout: av.AudioLayout) -> str:
    """The channels' number, and for more than two how they are folded down."""
    channels = layout.nb_channels
    return f"{channels}" if channels <= CHANNELS else f"{channels}/{layout.name}"


def _too_much_sound(rate: int, channels: int, max_seconds: float) -> Fault:
    minutes = max_seconds * SAMPLES_A_SECOND / (rate * channels) / 60
    return Fault("too_much_sound", rate=rate, channels=channels, max_minutes=f"{minutes:.2g}")
