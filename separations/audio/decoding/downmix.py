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
