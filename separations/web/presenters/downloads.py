"""The formats and sample rates that the template of downloads offers."""

from dataclasses import dataclass

from django.utils.translation import gettext

from separations.audio.encoding.formats import MODEL_RATE, SONG_RATE, format_choices
from separations.audio.info import SAMPLE_RATE


@dataclass(frozen=True)
class DownloadChoice:
    """A format at a bit rate. value: what `format` in the address may be.

    takes_song_rate: whether it can have the sample rate of the song.
    """

    value: str
    label: str
    is_sent_when_whole: bool
    takes_song_rate: bool


@dataclass(frozen=True)
class RateChoice:
    """A sample rate. value: what `sample_rate` in the address may be."""

    value: str
    label: str


def rate_choices(song: int) -> list[RateChoice]:
    """The sample rates on offer for a song of this rate (Hz): none where there is but one."""
    if song == SAMPLE_RATE:
        return []
    model, own = khz(SAMPLE_RATE), khz(song)
    return [
        RateChoice(MODEL_RATE, gettext("%(rate)s, as the model works") % {"rate": model}),
        RateChoice(SONG_RATE, gettext("%(rate)s, as the song") % {"rate": own}),
    ]


def khz(rate: int) -> str:
    """48000 → 48 kHz"""
    return gettext("%(rate)s kHz") % {"rate": f"{rate / 1000:g}"}


def download_choices(song: int) -> list[DownloadChoice]:
    """The formats on offer for a song of this sample rate (Hz), in the active language."""
    return [
        DownloadChoice(
            value,
            gettext(format.label) + (f" {bit_rate} kbit/s" if bit_rate else ""),
            is_sent_when_whole=not format.grows,
            takes_song_rate=format.takes(song),
        )
        for value, format, bit_rate in format_choices()
    ]
