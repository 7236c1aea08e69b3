"""Fold decoded frames down to blocks of float32 stereo."""

from collections.abc import Iterator

import av
import numpy as np

from separations.audio.decoding.decoder_protocol import Block
from separations.audio.decoding.source import FloatFrames, samples_of
from separations.audio.info import CHANNELS

BLOCK_SAMPLES = 1 << 16


def stereo(frames: Iterator[av.AudioFrame]) -> Iterator[Block]:
    """Mono is doubled, stereo kept, surround folded down as ITU-R BS.775 says (by FFmpeg)."""
    as_float = FloatFrames()
    downmix, form = av.AudioResampler("fltp", "stereo"), None
    for frame in frames:
        channels = frame.layout.nb_channels
        if channels <= CHANNELS:
            samples = as_float.convert(frame)
            yield np.repeat(samples, CHANNELS, axis=0) if channels == 1 else samples
        else:
            # The last frame, or those of another rate, come in another format.
            now = (frame.format.name, frame.layout.name)
            if form not in (None, now):
                downmix = av.AudioResampler("fltp", "stereo")
            form = now
            frame.pts = None
            for mixed in downmix.resample(frame):
                yield samples_of(mixed)


def gather(pieces: Iterator[Block]) -> Iterator[Block]:
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
