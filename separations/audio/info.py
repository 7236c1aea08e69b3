"""Facts about a decoded song, and the format of all stems. Light: the web process imports it."""

import math
import unicodedata
from dataclasses import dataclass, field
from importlib.metadata import version

SAMPLE_RATE = 44_100  # Hz: what Demucs' models are trained on, and what every stem has
CHANNELS = 2
STUDIO_BYTES = 96_000 * 2 * 3  # a second of 24-bit stereo WAV at 96 kHz
TAGS_MB = 14  # a cover in print quality
# Of the decoder, on which samples depend. Raise the first number when this package reads files in
# another way; the version of PyAV stands for its FFmpeg.
DECODER_VERSION = f"2 av {version('av')}"
ENCODERS = ("av", "soundfile", "soxr", "numpy", "mutagen")
# Of the encoders, on which the bytes of downloads depend.
ENCODER_VERSIONS = " ".join(f"{name} {version(name)}" for name in ENCODERS)

# Raise it when more or other tags are read: an earlier upload of the same file is then read again.
TAGS_VERSION = 1
MOST_COVER = 2_000_000  # bytes of a cover; larger ones are left out
LONGEST_TEXT, LONGEST_KEY = 200, 20  # characters of a tag
MOST_TRACK, MOST_YEAR, MOST_BPM = 9999, 9999, 1000.0
JOINERS = "\u200c\u200d"  # of Persian, Hindi and emoji, which are spelled with them
COVER_TYPES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}


@dataclass(frozen=True)
class Tags:
    """What a file says of its song. Empty texts and None: it does not say.

    key: the musical key as it is written there, such as "F#m" or "8A". cover: a JPEG or PNG file.
    """

    title: str = ""
    artist: str = ""
    album: str = ""
    track: int | None = None
    track_total: int | None = None
    year: int | None = None
    genre: str = ""
    bpm: float | None = None
    key: str = ""
    cover: bytes = field(default=b"", repr=False)

    @property
    def track_of_total(self) -> str:
        """Such as "3/12" or "3"; "" where the file does not say."""
        if self.track is None:
            return ""
        return f"{self.track}/{self.track_total}" if self.track_total else str(self.track)


def is_printable(text: str) -> bool:
    """Whether a text is one line without controls, overrides of direction or other unseen marks."""
    return all(char.isprintable() or char in JOINERS for char in text)


def printable_line(text: str) -> str:
    """A text as one line that `is_printable`: unseen marks left out, controls as spaces."""
    seen = (char for char in text if is_printable(char) or unicodedata.category(char) != "Cf")
    return " ".join("".join(char if is_printable(char) else " " for char in seen).split())


def cover_type(cover: bytes) -> str:
    """The content type of a picture by its first bytes; "" for all but JPEG and PNG."""
    return next((name for start, name in COVER_TYPES.items() if cover.startswith(start)), "")


@dataclass(frozen=True)
class AudioInfo:
    """A readable song. `samples_sha256` identifies its decoded samples, whatever its tags."""

    container: str
    codec: str
    sample_rate: int
    channels: int
    frames: int
    tags: Tags
    samples_sha256: str

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_rate


def studio_megabytes(seconds: float) -> int:
    """Millions of bytes of a song as studios keep it: 24-bit stereo WAV at 96 kHz, with tags."""
    return math.ceil(seconds * STUDIO_BYTES / 1e6) + TAGS_MB
