"""Read any accepted file as 44.1 kHz float32 stereo, block by block, in constant memory.

The sandbox decodes and folds down to stereo; this module gets plain samples and resamples them.
"""

import math
from collections.abc import Generator, Iterator
from pathlib import Path

import av
import numpy as np

from separations.audio.decoding.decoder_protocol import Block
from separations.audio.decoding.source import samples_of
from separations.audio.info import CHANNELS, SAMPLE_RATE
from separations.audio.sandbox.decoder_process import open_song

# torchaudio's polyphase kernel has a row for each step of the reduced ratio. Rates that hardly
# share a factor with 44,100 (44,056 Hz, say) would need gigabytes; FFmpeg takes those.
LARGEST_KERNEL = 2_000_000
# torchaudio's documented equivalent of resampy's "kaiser_best".
LOWPASS_WIDTH, ROLLOFF, BETA = 64, 0.9475937167399596, 14.769656459379492


def decode(path: Path, max_seconds: float = math.inf) -> Generator[Block]:
    """Decode the song at `path` into blocks of shape (2, samples) at 44.1 kHz, full scale ±1.

    Raises:
        Fault: when the file cannot be read (see `separations.audio.sandbox.decoder_process`).
    """
    with open_song(path, max_seconds) as song:
        if song.rate == SAMPLE_RATE:
            yield from song.blocks()
        elif _kernel_size(song.rate) <= LARGEST_KERNEL:
            yield from resample(song.blocks(), song.rate)
        else:
            yield from _resample_odd_rate(song.blocks(), song.rate)


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
    # Imported here: torch needs seconds and 200 MB, and most songs are at 44.1 kHz already.
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
    # The rest needs silence after it; the length is that of torchaudio on the whole song.
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
