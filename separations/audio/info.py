"""What is known of a song once it has been read. Light: the web process imports it."""

from dataclasses import dataclass

SAMPLE_RATE = 44_100  # Hz: what Demucs' models are trained on, and what every stem has
CHANNELS = 2


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
