"""Find a song's facts by decoding all of it once, so that length and samples are certain.

This runs in the sandbox (`audio.sandbox.worker`), started by `audio.sandbox.decoder_process`.
"""

import hashlib
import os

import numpy as np

from separations.audio.decoding.source import MIN_SECONDS, FloatFrames, open_source, size_of
from separations.audio.decoding.tags import read_tags
from separations.audio.info import CHANNELS, AudioInfo
from separations.audio.level_limits import HIGHEST_LEVEL, check_song
from separations.errors.fault import Fault

# Samples of all channels in a second, on average over the longest song: 192 kHz in stereo, or
# 48 kHz in 7.1. A megabyte of silence may hold five times as many, a minute's work for a decoder.
SAMPLES_A_SECOND = 384_000
# A file that states its length may fall short of it by encoder padding, not by more than this.
SHORTFALL_SECONDS = 1.0


def probe(file: int, max_seconds: float) -> AudioInfo:
    """Decode an open file from beginning to end, for the facts about it.

    Args:
        file: its descriptor.

    Raises:
        Fault: whatever `open_source` raises, and too_long, too_short, truncated, not_finite,
            too_much_sound, too_loud, damaged, rate_changes or channels_change.
    """
    digest = hashlib.sha256()
    frames = 0
    as_float = FloatFrames()
    with open_source(file) as source:
        rate, channels = source.rate, source.layout.nb_channels
        for frame in source.frames():
            frames += frame.samples
            if frames > max_seconds * rate:
                raise Fault("too_long", max_minutes=f"{max_seconds / 60:.3g}")
            if frames * channels > max_seconds * SAMPLES_A_SECOND:
                raise _too_much_sound(rate, channels, max_seconds)
            samples = as_float.convert(frame)
            is_double = frame.format.name.startswith("dbl")
            check_song(samples, HIGHEST_LEVEL, from_double=is_double)
            # Interleaved, so that the identity does not depend on how the codec cuts its frames.
            digest.update(np.ascontiguousarray(samples.T).tobytes())
        if frames < MIN_SECONDS * rate:
            raise Fault("too_short", min_seconds=MIN_SECONDS)
        stated = source.stated_seconds
        seconds = frames / rate
        short = stated is not None and stated - seconds > max(SHORTFALL_SECONDS, 0.01 * stated)
        is_cut = CUT_CHECKS.get(source.container.format.name, lambda _file: False)
        if short or is_cut(file):
            raise Fault("truncated", read=round(seconds))
        metadata = {**source.container.metadata, **source.stream.metadata}
        # How it is folded down.
        layout = "" if channels <= CHANNELS else f"/{source.layout.name}"
        digest.update(f"{rate}/{channels}{layout}".encode())
        container = source.container.format.name.split(",")[0]
        codec = source.stream.codec_context.name
    # After FFmpeg's memory is free again, in which it holds all covers.
    return AudioInfo(
        container=container,
        codec=codec,
        sample_rate=rate,
        channels=channels,
        frames=frames,
        tags=read_tags(file, container, codec, metadata),
        samples_sha256=digest.hexdigest(),
    )


def _too_much_sound(rate: int, channels: int, max_seconds: float) -> Fault:
    minutes = max_seconds * SAMPLES_A_SECOND / (rate * channels) / 60
    return Fault("too_much_sound", rate=rate, channels=channels, max_minutes=f"{minutes:.2g}")


def _last_ogg_page_is_cut(file: int) -> bool:
    """Ogg states no length, but its last page how many bytes that has (RFC 3533, 6)."""
    largest_page = 27 + 255 + 255 * 255
    tail = os.pread(file, largest_page, max(0, size_of(file) - largest_page))
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return True
    segments = page[26]
    return len(page) < 27 + segments + sum(page[27 : 27 + segments])


def _riff_is_cut(file: int) -> bool:
    """A RIFF file states its size, from byte 8 on; 0 and the largest number mean unknown."""
    stated = int.from_bytes(os.pread(file, 4, 4), "little")
    return stated not in (0, 0xFFFFFFFF) and size_of(file) < 8 + stated - 1


# FFmpeg computes the length of these from the bytes present, so it cannot find that some are lost.
CUT_CHECKS = {"ogg": _last_ogg_page_is_cut, "wav": _riff_is_cut}
