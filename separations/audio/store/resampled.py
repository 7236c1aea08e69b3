"""Resample stems and mixes to another sample rate, readable from any sample on (soxr, VHQ)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from separations.audio.info import CHANNELS, SAMPLE_RATE
from separations.audio.store.readers import Reader, Samples

BLOCK_SECONDS = 1.4
# Milliseconds on each side that an output sample depends on, at the lower of the two rates: with
# fewer, blocks differ from a song that is resampled in one go.
CONTEXT_MS = 50


def frames_at(frame: int, rate: int) -> int:
    """Where a sample at 44.1 kHz is at `rate`, rounded to nearest."""
    return (2 * frame * rate + SAMPLE_RATE) // (2 * SAMPLE_RATE)


@dataclass(frozen=True)
class Resampled:
    """Another reader's samples at `rate` (Hz), without delay.

    Each block is made of the same samples of the song, and some around them, wherever reading
    began. So a sample has the same bits always. A block is a whole number of the periods after
    which the filter's phase repeats, so that blocks join exactly.
    """

    whole: Reader
    rate: int

    @property
    def frames(self) -> int:
        return frames_at(self.whole.frames, self.rate)

    def read(self, start: int, stop: int) -> Iterator[Samples]:
        import soxr  # here: most processes never resample

        old, new, periods, around = self._layout()
        stop = min(stop, self.frames)
        first, last = start // (periods * new), -(-stop // (periods * new))
        if start >= stop:
            return
        window = (periods + 2 * around) * old
        begin = (first * periods - around) * old
        samples = self._surrounded(begin, (last * periods + around) * old)
        held = np.zeros((0, CHANNELS), np.float32)
        for block in range(first, last):
            while len(held) < window:
                held = np.concatenate((held, next(samples)))
            made = soxr.resample(held[:window], SAMPLE_RATE, self.rate, quality="VHQ")
            held = held[periods * old :]
            at = block * periods * new
            low, high = max(start, at) - at, min(stop, at + periods * new) - at
            yield made[around * new :][low:high]

    def _layout(self) -> tuple[int, int, int, int]:
        """Input and output samples of a period, periods of a block, and around it on each side."""
        common = math.gcd(self.rate, SAMPLE_RATE)
        old, new = SAMPLE_RATE // common, self.rate // common
        periods = max(1, int(BLOCK_SECONDS * common))
        context = CONTEXT_MS / 1000 * max(1.0, SAMPLE_RATE / self.rate)
        return old, new, periods, math.ceil(context * common)

    def _surrounded(self, start: int, stop: int) -> Iterator[Samples]:
        """The other reader's samples, with silence before its beginning and after its end."""
        if start < 0:
            yield np.zeros((-start, CHANNELS), np.float32)
        yield from self.whole.read(max(0, start), min(stop, self.whole.frames))
        if (after := stop - max(start, self.whole.frames)) > 0:
            yield np.zeros((after, CHANNELS), np.float32)


def at_rate(reader: Reader, rate: int) -> Reader:
    """`reader` at a rate in Hz; itself where it has that rate already."""
    return reader if rate == reader.rate else Resampled(reader, rate)
