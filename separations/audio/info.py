"""Facts about a decoded song, and the format of all stems. Light: the web process imports it."""

import math
from dataclasses import dataclass
from importlib.metadata import version

SAMPLE_RATE = 44_100  # Hz: what Demucs' models are trained on, and what every stem has
CHANNELS = 2
STUDIO_BYTES = 96_000 * 2 * 3  # a second of 24-bit stereo WAV at 96 kHz
TAGS_MB = 14  # a cover in print quality
# Of the decoder, on which samples depend. Raise the first number when this package reads files in
# another way; the version of PyAV stands for its FFmpeg.
DECODER_VERSION = f"2 av {version('av')}"


@dataclass(frozen=True)
class AudioInfo:
    """A readable song. `samples_sha256` identifies its decoded samples, whatever its tags."""

    container: str
    codec: str
    sample_rate: int
    channels: int
    frames: int
    title: str
    artist: str
    samples_sha256: str

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_rate


def studio_megabytes(seconds: float) -> int:
    """Millions of bytes of a song as studios keep it: 24-bit stereo WAV at 96 kHz, with tags."""
    return math.ceil(seconds * STUDIO_BYTES / 1e6) + TAGS_MB
