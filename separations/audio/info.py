"""Facts about a decoded song, and the format of all stems. Light: the web process imports it."""

from dataclasses import dataclass
from importlib.metadata import version

SAMPLE_RATE = 44_100  # Hz: what Demucs' models are trained on, and what every stem has
CHANNELS = 2
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
