"""Short-time Fourier transforms (STFT) around an HTDemucs network, without torch.

Equal to `HTDemucs._spec`, `_magnitude`, `_mask` and `_ispec` to within rounding, with what those
leave to `torch.stft` and `istft`: frames of `nfft` samples every `nfft / 4`, a periodic Hann
window, and padding so that the number of frames is the length over the hop.
"""

import math
from functools import lru_cache

import numpy as np

from separations.engine.inference.network import Samples

FRAMES_OVERLAPPING = 4  # a hop is a quarter of a frame
SUM_OF_SQUARED_WINDOWS = 1.5  # of Hann windows a quarter apart, at every sample


def analyse(mixture: Samples, nfft: int) -> Samples:
    """The spectrum of `mixture`, shape (channels, samples); at least nfft / 2 samples.

    Returns:
        Shape (channels, frames, nfft / 2, 2): real and imaginary part last, the bin at half the
        sample rate left out.
    """
    hop = nfft // FRAMES_OVERLAPPING
    frames = math.ceil(mixture.shape[-1] / hop)
    lead = hop // 2 * 3
    tail = lead + frames * hop - mixture.shape[-1]
    padded = np.pad(mixture, ((0, 0), (lead, tail)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, nfft, axis=-1)[:, ::hop]
    scale = np.float32(1 / math.sqrt(nfft))  # torch.stft(normalized=True)
    spectrum = np.fft.rfft(windows * (_hann(nfft) * scale), axis=-1)[..., :-1]
    parts: Samples = np.ascontiguousarray(spectrum, np.complex64).view(np.float32)
    return parts.reshape(*spectrum.shape, 2)


def synthesise(spectrum: Samples, length: int) -> Samples:
    """The first `length` samples of the signal with the spectrum `spectrum` (as from `analyse`)."""
    channels, frames, bins, _parts = spectrum.shape
    nfft = 2 * bins
    hop = nfft // FRAMES_OVERLAPPING
    whole = np.zeros((channels, frames, bins + 1), np.complex64)
    whole[..., :-1] = np.ascontiguousarray(spectrum).view(np.complex64)[..., 0]
    scale = np.float32(math.sqrt(nfft) / SUM_OF_SQUARED_WINDOWS)
    waves = np.fft.irfft(whole, nfft, axis=-1)
    waves *= _hann(nfft) * scale
    quarters = waves.reshape(channels, frames, FRAMES_OVERLAPPING, hop)
    hops = np.zeros((channels, frames + FRAMES_OVERLAPPING - 1, hop), np.float32)
    for quarter in range(FRAMES_OVERLAPPING):
        hops[:, quarter : quarter + frames] += quarters[:, :, quarter]
    lead = hop // 2 * 3
    samples: Samples = hops.reshape(channels, -1)[:, lead : lead + length]
    return samples


@lru_cache(maxsize=4)
def _hann(length: int) -> Samples:
    """As torch.hann_window, which is periodic."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)).astype(np.float32)
