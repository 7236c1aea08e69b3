"""Any accepted file as 44.1 kHz float32 stereo, in blocks, in memory that does not grow with it."""

import math
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from separations.audio.info import CHANNELS, SAMPLE_RATE
from separations.audio.source import FloatFrames, open_source, samples_of

Block = NDArray[np.float32]  # (2, samples)
BLOCK_SAMPLES = 1 << 16
# torchaudio's polyphase kernel has a row for each step of the reduced ratio. Rates that hardly
# share a factor with 44,100 (44,056 Hz, say) would need gigabytes; FFmpeg takes those.
LARGEST_KERNEL = 2_000_000
# torchaudio's documented equivalent of resampy's "kaiser_best".
LOWPASS_WIDTH, ROLLOFF, BETA = 64, 0.9475937167399596, 14.769656459379492


def decode(path: Path) -> Iterator[Block]:
    """Decode the song at `path` into blocks of shape (2, samples) at 44.1 kHz, full scale ±1.

    Raises:
        Fault: when the file cannot be read (see `separations.audio.source`).
    """
    with open_source(path) as source:
        rate = source.stream.codec_context.sample_rate
        blocks = _gather(_stereo(source.frames()))
        if rate == SAMPLE_RATE:
            yield from blocks
        elif _kernel_size(rate) <= LARGEST_KERNEL:
            yield from resample(blocks, rate)
        else:
            yield from _resample_odd_rate(blocks, rate)


def _stereo(frames: Iterator[av.AudioFrame]) -> Iterator[Block]:
    """Mono is doubled, stereo kept, surround folded down as ITU-R BS.775 says (by FFmpeg)."""
    as_float = FloatFrames()
    downmix, mixed_layout = av.AudioResampler("fltp", "stereo"), None
    for frame in frames:
        channels = frame.layout.nb_channels
        if channels <= CHANNELS:
            samples = as_float.convert(frame)
            yield np.repeat(samples, CHANNELS, axis=0) if channels == 1 else samples
        else:
            if mixed_layout not in (None, frame.layout.name):
                downmix = av.AudioResampler("fltp", "stereo")
            mixed_layout = frame.layout.name
            frame.pts = None
            for mixed in downmix.resample(frame):
                yield samples_of(mixed)


def _gather(pieces: Iterator[Block]) -> Iterator[Block]:
    """Join a codec's small frames into blocks of about a second."""
    held: list[Block] = []
    samples = 0
    for piece in pieces:
        held.append(piece)
        samples += piece.shape[1]
        if samples >= BLOCK_SAMPLES:
            yield np.concatenate(held, axis=1)
            held, samples = [], 0
    if held:
        yield np.concatenate(held, axis=1)


def _reduced(rate: int) -> tuple[int, int]:
    common = math.gcd(rate, SAMPLE_RATE)
    return rate // common, SAMPLE_RATE // common


def _half_width(rate: int) -> int:
    """Input samples on each side that one output sample depends on (torchaudio's `width`)."""
    old, new = _reduced(rate)
    cutoff = min(old, new) * ROLLOFF
    return math.ceil(LOWPASS_WIDTH * old / cutoff)


def _kernel_size(rate: int) -> int:
    old, new = _reduced(rate)
    return new * (2 * _half_width(rate) + old)


def resample(blocks: Iterator[Block], rate: int) -> Iterator[Block]:
    """Resample a stream of blocks from `rate` to 44.1 kHz; the same samples as doing it in one go.

    The filter repeats itself every `old` input samples, so whole periods can be converted with
    enough of their neighbours around them, and the neighbours' output dropped.
    """
    # Here alone: torch takes seconds and 200 MB, and most songs are at 44.1 kHz already.
    import torch
    from torchaudio.transforms import Resample

    old, new = _reduced(rate)
    convert = Resample(
        rate,
        SAMPLE_RATE,
        resampling_method="sinc_interp_kaiser",
        lowpass_filter_width=LOWPASS_WIDTH,
        rolloff=ROLLOFF,
        beta=BETA,
    )
    margin = math.ceil(_half_width(rate) / old) + 1  # in periods
    pending = np.zeros((CHANNELS, margin * old), np.float32)
    received = sent = 0

    def finished(samples: Block, periods: int) -> Block:
        usable = torch.from_numpy(samples[:, : (2 * margin + periods) * old])
        converted: Block = convert(usable).numpy()
        return converted[:, margin * new : (margin + periods) * new]

    for block in blocks:
        received += block.shape[1]
        pending = np.concatenate((pending, block), axis=1)
        periods = pending.shape[1] // old - 2 * margin
        if periods > 0:
            ready = finished(pending, periods)
            sent += ready.shape[1]
            yield ready
            pending = pending[:, periods * old :]
    # What is left needs silence behind it; the length is the one torchaudio would give the whole.
    total = math.ceil(received * new / old)
    periods = math.ceil((total - sent) / new)
    if periods > 0:
        missing = (2 * margin + periods) * old - pending.shape[1]
        ready = finished(np.pad(pending, ((0, 0), (0, max(0, missing)))), periods)
        yield ready[:, : total - sent]


def _resample_odd_rate(blocks: Iterator[Block], rate: int) -> Iterator[Block]:
    converter = av.AudioResampler("fltp", "stereo", SAMPLE_RATE)
    for block in blocks:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), "fltp", "stereo")
        frame.sample_rate = rate
        for converted in converter.resample(frame):
            yield samples_of(converted)
    for converted in converter.resample(None):
        yield samples_of(converted)
