"""The part of a song that is asked for, between two times: `65.5`, `1:05.5` or `0:01:05.5`."""

import re
from dataclasses import dataclass

from separations.audio.info import SAMPLE_RATE
from separations.errors.fault import Fault
from separations.models import Job

SECONDS = re.compile(r"(?=\.?\d)\d{0,6}(?:\.\d{0,9})?", re.ASCII)
# Hours, if any, minutes and seconds: 1:50:00, 110:00
CLOCK = re.compile(r"(?:(\d{1,3}):([0-5]\d)|(\d{1,4})):([0-5]\d(?:\.\d{0,9})?)", re.ASCII)
ROUNDING = SAMPLE_RATE // 100  # by how many samples a page may have rounded the length of a song
SHORTEST = SAMPLE_RATE // 100


@dataclass(frozen=True)
class Span:
    """The samples from `start` up to `stop`."""

    start: int
    stop: int

    @property
    def text(self) -> str:
        return f"{self.start}-{self.stop}"


def frames_of(job: Job) -> int:
    """The length of a job's stems in samples. Raises Fault (result_gone) when it has none."""
    if not job.has_stems or job.frames is None:
        raise Fault("result_gone")
    return job.frames


def span_of(job: Job, start: str, stop: str) -> Span:
    """The range between two times, each of which may be left open.

    Raises:
        Fault: result_gone; bad_option when the song has no such part.
    """
    frames = frames_of(job)
    if not start and not stop:
        return Span(0, frames)
    first = _frame(start) if start else 0
    last = _frame(stop) if stop else frames
    if first is not None and last is not None and last <= frames + ROUNDING:
        last = min(last, frames)
        if last - first >= SHORTEST:
            return Span(first, last)
    allowed = f"0 ≤ from < to ≤ {frames / SAMPLE_RATE:.2f} (s, m:ss, h:mm:ss)"
    raise Fault("bad_option", option="from, to", allowed=allowed)


def _frame(text: str) -> int | None:
    """The sample at a time; None if the text is no time."""
    if SECONDS.fullmatch(text):
        return round(float(text) * SAMPLE_RATE)
    if clock := CLOCK.fullmatch(text):
        hours, of_hour, minutes, seconds = clock.groups(default="0")
        whole = int(hours) * 3600 + (int(of_hour) + int(minutes)) * 60
        return round((whole + float(seconds)) * SAMPLE_RATE)
    return None
