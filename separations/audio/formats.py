"""The download formats, their names and what they hold."""

from dataclasses import dataclass
from typing import Literal

BIT_RATES = (128, 192, 256, 320)  # kbit/s, MP3


@dataclass(frozen=True)
class Format:
    """One way to write a stem.

    `bytes_per_sample` is 0 where the length in bytes is not known before encoding.
    """

    name: str
    extension: str
    content_type: str
    bytes_per_sample: Literal[0, 2, 3, 4]

    @property
    def keeps_overs(self) -> bool:
        """Whether samples beyond full scale survive, so that no gain is needed."""
        return self.name == "float32"


FORMATS = {
    each.name: each
    for each in (
        Format("wav", "wav", "audio/wav", 2),
        Format("wav24", "wav", "audio/wav", 3),
        Format("float32", "wav", "audio/wav", 4),
        Format("flac", "flac", "audio/flac", 0),
        Format("mp3", "mp3", "audio/mpeg", 0),
    )
}
