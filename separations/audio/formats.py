"""The download formats, their names and what they hold."""

from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True)
class Tags:
    title: str
    artist: str

    @property
    def texts(self) -> dict[str, str]:
        """By the names that FFmpeg has for them, without empty ones."""
        return {name: text for name, text in asdict(self).items() if text}


@dataclass(frozen=True)
class Format:
    """One way to write a stem.

    `bytes_per_sample` is 0 where the length in bytes is not known before encoding; `bit_rates` in
    kbit/s, lowest first, are on offer where samples are not kept exactly.
    """

    name: str
    extension: str
    content_type: str
    bytes_per_sample: Literal[0, 2, 3, 4]
    bit_rates: tuple[int, ...] = ()

    @property
    def keeps_overs(self) -> bool:
        """Whether samples beyond full scale survive, so that no gain is needed."""
        return self.name == "float32"

    @property
    def grows(self) -> bool:
        """Whether the beginning of a file can be sent before its end is encoded."""
        return self.name != "m4a"


FORMATS = {
    each.name: each
    for each in (
        Format("wav", "wav", "audio/wav", 2),
        Format("wav24", "wav", "audio/wav", 3),
        Format("float32", "wav", "audio/wav", 4),
        Format("flac", "flac", "audio/flac", 0),
        Format("mp3", "mp3", "audio/mpeg", 0, (128, 192, 256, 320)),
        Format("m4a", "m4a", "audio/mp4", 0, (128, 192, 256)),
        Format("opus", "opus", "audio/ogg", 0, (96, 128, 192)),
    )
}
