"""The part of a song that is asked for, between two times in seconds."""

import re
from dataclasses import dataclass

from separations.audio.info import SAMPLE_RATE
from separations.errors.fault import Fault
from separations.models import Job

SECONDS = re.compile(r"(?=\.?\d)\d{0,6}(?:\.\d{0,9})?", re.ASCII)
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
    """The range between two times in seconds, each of which may be left open.

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
    allowed = f"0 ≤ from < to ≤ {frames / SAMPLE_RATE:.2f}"
    raise Fault("bad_option", option="from, to", allowed=allowed)


def _frame(seconds: str) -> int | None:
    return round(float(seconds) * SAMPLE_RATE) if SECONDS.fullmatch(seconds) else None
