"""What a file really is: decoded whole once, so that its length and its samples are certain.

`python -m separations.audio.probe PATH MAX_SECONDS` does it under resource limits and prints one
line of JSON; `separations.audio.isolated` runs that for the site.
"""

import contextlib
import hashlib
import json
import resource
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from separations.audio.info import AudioInfo
from separations.audio.source import FloatFrames, open_source
from separations.faults import Fault

MIN_SECONDS = 0.1
LIMITS = {
    resource.RLIMIT_AS: 2 * 1024**3,  # bytes
    resource.RLIMIT_CPU: 60,  # seconds
    resource.RLIMIT_FSIZE: 0,  # bytes: it writes no file
}
# A file that states its length may fall short of it by encoder padding, not by more than this.
SHORTFALL_SECONDS = 1.0


def probe(path: Path, max_seconds: float) -> AudioInfo:
    """Decode the file at `path` from end to end, keeping nothing but what describes it.

    Raises:
        Fault: whatever `open_source` raises, and too_long, too_short, truncated, not_finite,
            damaged or rate_changes.
    """
    digest = hashlib.sha256()
    frames = 0
    as_float = FloatFrames()
    with open_source(path) as source:
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
        is_cut = CUT_CHECKS.get(source.container.format.name, lambda _path: False)
        if short or is_cut(path):
            raise Fault("truncated", read=round(seconds))
        tags = {**source.container.metadata, **source.stream.metadata}
        tags = {key.lower(): _clean(value) for key, value in tags.items()}
        digest.update(f"{rate}/{channels}".encode())
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


def _last_ogg_page_is_cut(path: Path) -> bool:
    """Ogg states no length; but its last page says how many bytes it should have (RFC 3533, 6)."""
    largest_page = 27 + 255 + 255 * 255
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - largest_page))
        tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return True
    segments = page[26]
    return len(page) < 27 + segments + sum(page[27 : 27 + segments])


def _riff_is_cut(path: Path) -> bool:
    """A RIFF file states its size, from byte 8 on; 0 and the largest number mean "not known"."""
    with path.open("rb") as file:
        stated = int.from_bytes(file.read(8)[4:], "little")
    return stated not in (0, 0xFFFFFFFF) and path.stat().st_size < 8 + stated - 1


# FFmpeg takes the length of these from what is there, so it cannot tell that something is missing.
CUT_CHECKS = {"ogg": _last_ogg_page_is_cut, "wav": _riff_is_cut}


def main() -> None:
    """Answer {"info": …} or {"fault": code, "params": …} on standard output."""
    for limit, value in LIMITS.items():
        with contextlib.suppress(ValueError, OSError):  # not every system knows every limit
            resource.setrlimit(limit, (value, value))
    try:
        answer: dict[str, object] = {"info": asdict(probe(Path(sys.argv[1]), float(sys.argv[2])))}
    except Fault as fault:
        answer = {"fault": fault.code, "params": fault.params}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
