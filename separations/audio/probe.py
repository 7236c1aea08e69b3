"""What a file really is: decoded whole once, so that its length and its samples are certain.

Done in the sandbox (`separations.audio.child`); `separations.audio.isolated` is the way there.
"""

import hashlib
import os

import numpy as np

from separations.audio.info import CHANNELS, AudioInfo
from separations.audio.source import FloatFrames, open_source
from separations.faults import Fault

MIN_SECONDS = 0.1
# A file that states its length may fall short of it by encoder padding, not by more than this.
SHORTFALL_SECONDS = 1.0


def probe(file: int, max_seconds: float) -> AudioInfo:
    """Decode an open file from end to end, keeping nothing but what describes it.

    Args:
        file: its descriptor.

    Raises:
        Fault: whatever `open_source` raises, and too_long, too_short, truncated, not_finite,
            damaged or rate_changes.
    """
    digest = hashlib.sha256()
    frames = 0
    as_float = FloatFrames()
    with open_source(file) as source:
        codec = source.stream.codec_context
        rate = codec.sample_rate
        channels = codec.channels
        for frame in source.frames():
            frames += frame.samples
            if frames > max_seconds * rate:
                raise Fault("too_long", max_minutes=f"{max_seconds / 60:.3g}")
            samples = as_float.convert(frame)
            if not np.isfinite(samples).all():
                raise Fault("not_finite")
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
        tags = {**source.container.metadata, **source.stream.metadata}
        tags = {key.lower(): _clean(value) for key, value in tags.items()}
        layout = "" if channels <= CHANNELS else f"/{codec.layout.name}"  # how it is folded down
        digest.update(f"{rate}/{channels}{layout}".encode())
        return AudioInfo(
            container=source.container.format.name.split(",")[0],
            codec=codec.name,
            sample_rate=rate,
            channels=channels,
            frames=frames,
            title=tags.get("title", ""),
            artist=tags.get("artist", ""),
            samples_sha256=digest.hexdigest(),
        )


def _clean(text: str) -> str:
    """A tag as one printable line of at most 200 characters."""
    printable = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(printable.split())[:200]


def _last_ogg_page_is_cut(file: int) -> bool:
    """Ogg states no length; but its last page says how many bytes it should have (RFC 3533, 6)."""
    largest_page = 27 + 255 + 255 * 255
    tail = os.pread(file, largest_page, max(0, os.fstat(file).st_size - largest_page))
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return True
    segments = page[26]
    return len(page) < 27 + segments + sum(page[27 : 27 + segments])


def _riff_is_cut(file: int) -> bool:
    """A RIFF file states its size, from byte 8 on; 0 and the largest number mean "not known"."""
    stated = int.from_bytes(os.pread(file, 4, 4), "little")
    return stated not in (0, 0xFFFFFFFF) and os.fstat(file).st_size < 8 + stated - 1


# FFmpeg takes the length of these from what is there, so it cannot tell that something is missing.
CUT_CHECKS = {"ogg": _last_ogg_page_is_cut, "wav": _riff_is_cut}
