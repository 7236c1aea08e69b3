"""The download formats: one table, from which page, API, command line and encoder follow.

A new format is one entry of `FORMATS`. If no encoder of a kind below can write it, it needs a new
kind here and its `case` in `encoder.open_encoder`; mypy finds a kind that has none.
"""

from dataclasses import dataclass
from typing import Final, Literal

from separations.audio.info import SAMPLE_RATE
from separations.errors.fault import Fault


def _(label: str) -> str:
    """Mark a label for translators. The pages translate it: there is no Django here."""
    return label


# The kinds of encoders

MP3_RATES = (44_100, 48_000, 32_000)  # of MPEG-1
AAC_RATES = (44_100, 48_000, 96_000, 88_200, 64_000, 32_000, 24_000, 22_050, 16_000)  # Hz


@dataclass(frozen=True)
class Wav:
    """RIFF/WAVE, made from the stem store while it is sent: integers, or 32-bit float."""

    bytes_per_sample: Literal[2, 3, 4]
    is_float: bool = False

    def takes(self, rate: int) -> bool:
        """Whether samples may come at this rate (Hz)."""
        return rate > 0


@dataclass(frozen=True)
class Flac:
    """FLAC by libsndfile."""

    bits: Literal[16, 24] = 24

    def takes(self, rate: int) -> bool:
        """In a head of a frame a rate is 16 bits of Hz, or of ten Hz (RFC 9639, 9.1.2)."""
        return rate < 1 << 16 or (rate % 10 == 0 and rate < 10 << 16)


@dataclass(frozen=True)
class ConstantRateMp3:
    """MP3 by LAME at a constant bit rate, whose size is known beforehand."""

    def takes(self, rate: int) -> bool:
        return rate in MP3_RATES


@dataclass(frozen=True)
class FFmpegFile:
    """A container and a codec by FFmpeg's names, and the muxer's options.

    rates: at which the codec works; FFmpeg resamples what comes at another one to the first of
    them. options: "{rate}" in one becomes the sample rate. moves_back: whether the muxer changes
    what it has written, so that nothing can be sent before the end.
    """

    container: str
    codec: str
    rates: tuple[int, ...] = (SAMPLE_RATE,)
    options: tuple[tuple[str, str], ...] = ()
    moves_back: bool = False

    def rate_for(self, rate: int) -> int:
        """The rate of the file that samples at `rate` become."""
        return rate if rate in self.rates else self.rates[0]

    def takes(self, rate: int) -> bool:
        return rate in self.rates


Encoder = Wav | Flac | ConstantRateMp3 | FFmpegFile


@dataclass(frozen=True)
class Format:
    """One way to write a stem.

    name: as programs ask for it, and part of an encoding's identity: never changed.
    label: as people read it, before translation. bit_rates: in kbit/s, lowest first, on offer by
    lossy formats.
    """

    name: str
    label: str
    extension: str
    content_type: str
    encoder: Encoder
    bit_rates: tuple[int, ...] = ()

    @property
    def wav(self) -> Wav | None:
        """How samples lie in the file where it is made while it is sent; None for formats that
        are encoded into a file first."""
        return self.encoder if isinstance(self.encoder, Wav) else None

    def takes(self, rate: int) -> bool:
        """Whether samples can be written at this rate (Hz): at 44.1 kHz always."""
        return rate == SAMPLE_RATE or self.encoder.takes(rate)

    @property
    def keeps_overs(self) -> bool:
        """Whether samples beyond full scale survive, so that no gain is needed."""
        return self.wav is not None and self.wav.is_float

    @property
    def grows(self) -> bool:
        """Whether the beginning of a file can be sent before its end is encoded."""
        return not (isinstance(self.encoder, FFmpegFile) and self.encoder.moves_back)

    @property
    def sample_rates(self) -> tuple[int, ...]:
        """In Hz, those that its files can have; none where these are all."""
        match self.encoder:
            case ConstantRateMp3():
                return MP3_RATES
            case FFmpegFile(rates=rates):
                return rates
        return ()

    @property
    def short_name(self) -> str:
        """What tells it from other formats of its extension, in the names of files."""
        match self.encoder:
            case Wav(width, is_float):
                return f"{8 * width}-bit" + (" float" if is_float else "")
            case Flac(bits):
                return f"{bits}-bit"
        return self.name

    @property
    def default_bit_rate(self) -> int:
        """The highest, 0 where there is none."""
        return max(self.bit_rates, default=0)


M4A = FFmpegFile(
    "ipod",
    "aac",
    AAC_RATES,
    # Else the edit list, which states where the song ends, is rounded to milliseconds.
    # The index goes before the samples, so that players can begin without the whole file.
    options=(("movie_timescale", "{rate}"), ("movflags", "+faststart")),
    moves_back=True,
)
OPUS = FFmpegFile(
    "opus",
    "libopus",
    rates=(48_000,),  # in which an Opus stream counts its samples, always
    options=(("flush_packets", "1"),),  # pages of a second go out as they are ready
)
FORMATS = {
    each.name: each
    for each in (
        Format("wav", _("WAV 16-bit"), "wav", "audio/wav", Wav(2)),
        Format("wav24", _("WAV 24-bit"), "wav", "audio/wav", Wav(3)),
        Format("float32", _("WAV 32-bit float"), "wav", "audio/wav", Wav(4, is_float=True)),
        Format("flac", "FLAC", "flac", "audio/flac", Flac()),
        Format("mp3", "MP3", "mp3", "audio/mpeg", ConstantRateMp3(), (128, 192, 256, 320)),
        Format("m4a", "M4A (AAC)", "m4a", "audio/mp4", M4A, (128, 192, 256)),
        Format("opus", "Ogg Opus", "opus", "audio/ogg", OPUS, (96, 128, 192)),
    )
}
DEFAULT_FORMAT = "wav"


# Reading a choice. Without a bit rate it is the format's highest, everywhere.


def read_format(name: str, bit_rate: int | None = None) -> tuple[Format, int]:
    """The format `name` and the bit rate to encode with, 0 for formats that have none.

    Raises:
        Fault: bad_option when there is no such format, or the format has no such bit rate.
    """
    format = FORMATS.get(name)
    if format is None:
        raise Fault("bad_option", option="format", allowed=", ".join(FORMATS))
    if bit_rate is None:
        return format, format.default_bit_rate
    if bit_rate not in format.bit_rates:
        allowed = ", ".join(map(str, format.bit_rates)) or "–"
        raise Fault("bad_option", option="bitrate", allowed=allowed)
    return format, bit_rate


def read_format_choice(text: str) -> tuple[Format, int]:
    """Format and bit rate from one word, NAME or NAME-RATE.

    Raises:
        Fault: bad_option when it is neither.
    """
    if text in FORMATS:
        return read_format(text)
    choices = {name: (format, rate) for name, format, rate in format_choices()}
    if text not in choices:
        raise Fault("bad_option", option="format", allowed=", ".join(choices))
    return choices[text]


MODEL_RATE: Final = "model"
SONG_RATE: Final = "song"
RATE_CHOICES = (MODEL_RATE, SONG_RATE)


def read_rate(choice: str, song: int, format: Format) -> int:
    """The sample rate in Hz that a word of RATE_CHOICES means for a song that has the rate `song`.

    Raises:
        Fault: bad_option when it is another word; rate_not_in_format.
    """
    if choice not in RATE_CHOICES:
        raise Fault("bad_option", option="sample_rate", allowed=", ".join(RATE_CHOICES))
    rate = song if choice == SONG_RATE else SAMPLE_RATE
    if not format.takes(rate):
        raise Fault("rate_not_in_format", format=format.name, khz=f"{rate / 1000:g}")
    return rate


def format_choices() -> list[tuple[str, Format, int]]:
    """Each format at each of its bit rates, the highest first, with its word."""
    return [
        (f"{format.name}-{rate}" if rate else format.name, format, rate)
        for format in FORMATS.values()
        for rate in format.bit_rates[::-1] or (0,)
    ]


def bit_rates() -> list[int]:
    """All bit rates that any format has, lowest first."""
    return sorted({rate for format in FORMATS.values() for rate in format.bit_rates})


def names_with_bit_rates() -> list[str]:
    return [format.name for format in FORMATS.values() if format.bit_rates]
