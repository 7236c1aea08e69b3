"""The formats that the template of downloads offers."""

from dataclasses import dataclass

from django.utils.translation import gettext

from separations.audio.encoding.formats import format_choices


@dataclass(frozen=True)
class DownloadChoice:
    """A format at a bit rate. value: what `format` in the address may be."""

    value: str
    label: str
    is_sent_when_whole: bool


def download_choices() -> list[DownloadChoice]:
    """The formats on offer, in the active language."""
    return [
        DownloadChoice(
            value,
            gettext(format.label) + (f" {bit_rate} kbit/s" if bit_rate else ""),
            is_sent_when_whole=not format.grows,
        )
        for value, format, bit_rate in format_choices()
    ]
