"""Separate a song chunk by chunk, in constant memory.

The result equals that of `demucs.api.Separator` on the same samples, as far as the networks agree.
Different are the order of the chunks, the seeded shifts, and the summation, which holds only as
much of the song as neighbouring chunks cover; networks do not run on silent chunks; and a constant
offset of the song (see `offset`) is not added to every stem. This module does not import torch: the
engine that runs the networks does.
"""

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from separations.audio.info import SAMPLE_RATE
from separations.engine.inference.network import Network, Samples
from separations.engine.inference.offset import CARRIER, Constants
from separations.engine.options import (
    ALL_STEMS,
    Options,
    needed_models,
    needed_sources,
    rest_name,
)
from separations.engine.weights.store import ModelInfo
from separations.errors.fault import Fault

SHIFT_SEED = 0
MOST_CONTEXT = 10 * SAMPLE_RATE
LARGEST_SHIFT_SECONDS = 0.5  # demucs.apply.apply_model
SILENCE = 2.0**-16  # half a step of 16 bits


class Song(Protocol):
    """Random access to a decoded mixture of `frames` samples at 44.1 kHz.

    means: of the left and the right channel, over the whole song. mean, deviation: of its mono
        downmix (Separator normalises by them).
    """

    frames: int
    means: tuple[float, float]
    mean: float
    deviation: float

    def read(self, start: int, stop: int) -> Samples:
        """Samples `start` to `stop`, both within the song; shape (2, stop - start)."""
        ...


@dataclass(frozen=True)
class Block:
    """A finished range of every chosen stem: name → samples of shape (2, n) from `start` on."""

    start: int
    stems: dict[str, Samples]

    @property
    def frames(self) -> int:
        return int(next(iter(self.stems.values())).shape[1])


@dataclass(frozen=True)
class Chunk:
    """One run of one model over samples `start` to `start + length` of the song.

    `start` may be before the song (a shifted pass begins in the silence ahead of it).
    """

    start: int
    length: int
    model: int
    pass_index: int


class Separation:
    """A song being separated. Iterate over `blocks()`; to cancel, stop iterating.

    Args:
        networks: returns the network of one model of the bag; called only for those that run.
        side_by_side: the number of chunks to run at a time.
    """

    def __init__(
        self,
        info: ModelInfo,
        networks: Callable[[int], Network],
        song: Song,
        options: Options,
        side_by_side: int = 1,
    ) -> None:
        self._info, self._networks, self._song, self._options = info, networks, song, options
        self._side_by_side = side_by_side
        self._sources = list(info.sources)
        self._needed = needed_sources(info, options)
        self._chunks = self._plan()
        carrier = self._sources.index(CARRIER) if CARRIER in self._sources else 0
        carries = [source == carrier for source in self._needed]
        self._constants = Constants.of(song.means, song.deviation, carries)

    def blocks(self, on_chunk: Callable[[int, int], None] | None = None) -> Iterator[Block]:
        """Yield finished blocks in order, without gap or overlap, to the end of the song.

        Args:
            on_chunk: called with (chunks done, chunks in all) after each run of a model.
        """
        mixer = _OverlapAdd(len(self._needed), self._song.frames)
        starts = [chunk.start for chunk in self._chunks[1:]] + [self._song.frames]
        results = self._run_all()
        for done, (chunk, samples, next_start) in enumerate(
            zip(self._chunks, results, starts, strict=True), 1
        ):
            mixer.add(chunk.start, samples)
            if on_chunk is not None:
                on_chunk(done, len(self._chunks))
            start, finished = mixer.pop(next_start)
            if finished.shape[-1]:
                yield self._block(start, finished)

    # Planning

    def _share(self, model: int, source: int) -> float:
        weights = self._info.weights
        return float(weights[model][source]) / float(sum(row[source] for row in weights))

    def _plan(self) -> list[Chunk]:
        """All chunks of all passes, in the order of where they begin."""
        chunks = []
        for model in needed_models(self._info, self._options):
            for pass_index, lead in enumerate(self._leads(model)):
                starts = range(-lead, self._song.frames, self._stride(model))
                length = self._segment_frames(model)
                chunks += [
                    Chunk(start, min(length, self._song.frames - start), model, pass_index)
                    for start in starts
                ]
        return sorted(chunks, key=lambda chunk: (chunk.start, chunk.model, chunk.pass_index))

    def _leads(self, model: int) -> list[int]:
        """How many samples before the song each pass over it begins."""
        if not self._options.shifts:
            return [0]
        most = int(LARGEST_SHIFT_SECONDS * SAMPLE_RATE)
        seed = np.random.default_rng([SHIFT_SEED, model])
        return [int(lead) for lead in seed.integers(0, most, self._options.shifts, endpoint=True)]

    def _segment_frames(self, model: int) -> int:
        if not self._options.split:
            return self._song.frames + int(LARGEST_SHIFT_SECONDS * SAMPLE_RATE)
        seconds = self._options.segment or self._info.segments[model]
        return int(SAMPLE_RATE * seconds)

    def _stride(self, model: int) -> int:
        return max(1, int((1 - self._options.overlap) * self._segment_frames(model)))

    # Running

    def _run_all(self) -> Iterator[Samples]:
        """Each chunk's weighted share of the needed sources, in the order of the plan."""
        # In a thread even one at a time, so that stems are written while the next chunk runs.
        with ThreadPoolExecutor(self._side_by_side) as pool:
            ahead: deque[Future[Samples]] = deque()
            left = iter(self._chunks)
            try:
                for chunk in itertools.islice(left, self._side_by_side):
                    ahead.append(pool.submit(self._run, chunk))
                while ahead:
                    ready = ahead.popleft().result()
                    ahead += [pool.submit(self._run, chunk) for chunk in itertools.islice(left, 1)]
                    yield ready
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, chunk: Chunk) -> Samples:
        """Run one model over one chunk; shape (needed sources, 2, length), share applied."""
        # A model may read more than its chunk (Demucs pads short ones with their surroundings).
        context = min(self._segment_frames(chunk.model) // 2, MOST_CONTEXT) + SAMPLE_RATE
        start = chunk.start - context
        stop = chunk.start + chunk.length + context
        if self._is_silent(chunk):
            level = -self._constants.of_stems / self._deviation  # which `_block` adds again
            estimate = np.repeat(level, chunk.length, axis=2)
        else:
            mixture = self._normalised(start, stop)
            network = self._networks(chunk.model)
            estimate = network.run(mixture, context, chunk.length, self._needed)
        shares = [self._share(chunk.model, source) for source in self._needed]
        scale = np.array(shares, np.float32)[:, None, None] * self._fade(chunk)
        weighted: Samples = estimate * scale
        return weighted

    def _is_silent(self, chunk: Chunk) -> bool:
        """Whether all samples that a model reads for this chunk are silent."""
        around = max(0, self._segment_frames(chunk.model) - chunk.length) // 2 + 1
        start = max(0, chunk.start - around)
        stop = min(self._song.frames, chunk.start + chunk.length + around)
        seen = self._song.read(start, stop)
        return not seen.size or float(np.abs(seen).max()) < SILENCE

    @property
    def _deviation(self) -> np.float32:
        return np.float32(self._song.deviation + 1e-8)  # as Separator

    def _normalised(self, start: int, stop: int) -> Samples:
        """The mixture as in training: mean 0, deviation 1, and zeros outside the song."""
        song = self._song
        inside_start, inside_stop = max(0, start), min(song.frames, stop)
        mixture = np.zeros((2, stop - start), np.float32)
        inside = song.read(inside_start, inside_stop)
        mixture[:, inside_start - start : inside_stop - start] = (
            inside - self._constants.of_song
        ) / self._deviation
        return mixture

    def _fade(self, chunk: Chunk) -> Samples:
        """The chunk's weight at each sample: its triangle over the sum of all of the pass.

        Divided by the number of passes. The triangle is Demucs' (apply_model, transition power 1).
        """
        length = self._segment_frames(chunk.model)
        stride = self._stride(chunk.model)
        triangle = _triangle(length)
        total = np.zeros(chunk.length, np.float32)
        passes = self._leads(chunk.model)
        first = -passes[chunk.pass_index]
        reach = math.ceil(length / stride)
        for step in range(-reach, reach + 1):
            offset = step * stride
            other = chunk.start + offset
            if other < first or other >= self._song.frames:
                continue
            low, high = max(0, offset), min(chunk.length, offset + length)
            if low < high:
                total[low:high] += triangle[low - offset : high - offset]
        fade: Samples = triangle[: chunk.length] / total / np.float32(len(passes))
        return fade

    # Results

    def _block(self, start: int, normalised: Samples) -> Block:
        if not np.isfinite(normalised).all():
            raise Fault("model_unusable", model=self._options.model, reason="it gave no numbers")
        song, options = self._song, self._options
        sources = normalised * self._deviation + self._constants.of_stems
        if options.stems == ALL_STEMS:
            return Block(start, dict(zip(self._sources, sources, strict=True)))
        if options.rest == "mixture":
            stem = sources[0]
            rest = song.read(start, start + stem.shape[1]) - stem
        else:
            at = self._sources.index(options.stems)
            stem = sources[at]
            rest = np.delete(sources, at, axis=0).sum(axis=0)
        return Block(start, {options.stems: stem, rest_name(options.stems): rest})


def _triangle(length: int) -> Samples:
    rising = np.arange(1, length // 2 + 1, dtype=np.float32)
    falling = np.arange(length - length // 2, 0, -1, dtype=np.float32)
    weight = np.concatenate((rising, falling))
    return np.asarray(weight / weight.max(), np.float32)


class _OverlapAdd:
    """Sums weighted chunks that arrive in the order of their start."""

    def __init__(self, sources: int, frames: int) -> None:
        self._frames = frames
        self._start = 0  # of the samples that may still change
        self._open = np.zeros((sources, 2, 0), np.float32)

    def add(self, start: int, samples: Samples) -> None:
        """Add a chunk that begins at `start`; what lies before the song is dropped."""
        if start < self._start:
            samples = samples[..., self._start - start :]
            start = self._start
        low = start - self._start
        high = low + samples.shape[-1]
        missing = high - self._open.shape[-1]
        if missing > 0:
            self._open = np.pad(self._open, ((0, 0), (0, 0), (0, missing)))
        self._open[..., low:high] += samples

    def pop(self, stop: int) -> tuple[int, Samples]:
        """Remove and return the start and the samples before `stop`, which no longer change."""
        start = self._start
        stop = min(max(stop, start), self._frames)
        finished = self._open[..., : stop - start]
        self._open = self._open[..., stop - start :]
        self._start = stop
        return start, finished
