"""Songs for tests: made here, or the real ones that lie beside the checkout or in it."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
import soundfile
from av.audio.stream import AudioStream
from numpy.typing import NDArray

from separations.audio.store.player_chunks import read_chunk

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("SHARED_AUDIO", ROOT.parent / "shared" / "audio"))
DEMO = ROOT / "static" / "demo" / "feelings.m4a"
RATE = 44_100
Samples = NDArray[np.float32]


def shared(name: str) -> Path:
    """A real song beside the checkout; the test is skipped where there is none."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(
            f"WITHOUT ../shared/audio: it lacks {name}; SHARED_AUDIO can name another folder"
        )
    return path


def music(seconds: float = 3.0, rate: int = RATE, channels: int = 2, seed: int = 0) -> Samples:
    """Chords, a beat and noise: shape (channels, samples), peak 0.5."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    chord = sum(np.sin(2 * np.pi * pitch * time) for pitch in (110, 220.5, 331, 442))
    beat = np.exp(-20 * (time % 0.5)) * rng.standard_normal(len(time))
    planes = [
        chord * (0.4 + 0.1 * c) + beat + 0.05 * rng.standard_normal(len(time))
        for c in range(channels)
    ]
    song = np.stack(planes)
    return np.asarray(0.5 * song / np.abs(song).max(), np.float32)


def sine(seconds: float, rate: int, channels: int = 2, pitch: float = 1000.0) -> Samples:
    time = np.arange(int(seconds * rate)) / rate
    return np.repeat(0.5 * np.sin(2 * np.pi * pitch * time)[None], channels, 0).astype(np.float32)


def wav(path: Path, samples: Samples, rate: int = RATE, subtype: str = "PCM_16") -> Path:
    soundfile.write(path, samples.T, rate, subtype)
    return path


def encode(
    path: Path, samples: Samples, codec: str, rate: int = RATE, layout: str = "stereo", **tags: str
) -> Path:
    """Write `samples` with one of FFmpeg's encoders; the container follows from the name."""
    container_format = {"aac": "adts", "m4a": "ipod"}.get(path.suffix[1:])
    with av.open(str(path), "w", format=container_format) as container:
        container.metadata.update(tags)
        stream = cast(AudioStream, container.add_stream(codec, rate=rate, layout=layout))
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", layout)
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def snr(reference: Samples, other: Samples) -> float:
    """Signal-to-noise ratio in dB: energy of `reference` over that of the difference."""
    noise = np.square(reference.astype(np.float64) - other).sum()
    return float(10 * np.log10(np.square(reference.astype(np.float64)).sum() / max(noise, 1e-30)))


def blocks(samples: Samples, size: int = 10_000) -> Iterator[Samples]:
    for start in range(0, samples.shape[1], size):
        yield samples[:, start : start + size]


def chunk(track: Path, index: int) -> Samples:
    """The samples of a chunk of a stored stem, as the player gets them; shape (2, n)."""
    found = read_chunk(track, index)
    assert found is not None
    samples = soundfile.read(io.BytesIO(found.data), dtype="float32", always_2d=True)[0].T
    return np.asarray(samples * np.float32(2.0**-found.exponent), np.float32)
