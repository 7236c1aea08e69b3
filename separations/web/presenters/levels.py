"""Texts about levels: peaks in dB, and what they mean for downloads."""

import math

from django.utils.translation import gettext

SILENCE = 1e-4  # −80 dB: a stem that peaks lower has nothing to hear


def decimal(value: float) -> str:
    """−1.2, with a true minus sign."""
    return f"{value:.1f}".replace("-", "−")


def mix_level_sentence(peak: float | None) -> str:
    """How loud a mix gets and what that means for its files.

    Args:
        peak: its largest sample, 1 is full scale; None where no stem is to be heard.
    """
    if peak is None:
        return gettext("Nothing is to be heard in this mix: all stems are muted.")
    if peak < SILENCE:
        return gettext("Nothing is to be heard in this part of the song.")
    level = round(20 * math.log10(peak), 1)
    if level <= 0:
        return gettext("Peaks at about %(level)s dB.") % {
            "level": f"−{abs(level)}" if level else "0.0"
        }
    return gettext(
        "Peaks at +%(db).1f dB: turned down by %(db).1f dB so that nothing clips. 32-bit float "
        "keeps the level."
    ) % {"db": level}
