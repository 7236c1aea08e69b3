"""Numbers as people read them: durations, sizes in bytes, percent."""

from math import ceil

from django.utils.translation import ngettext


def lasting(seconds: float) -> str:
    """75.2 → 1:15, 4000 → 1:06:40"""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02}"
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def longest(seconds: float) -> str:
    """A limit in words: 2 hours 30 minutes. Less than 5 minutes beside hours are left out."""
    if seconds < 3600:
        minutes = round(seconds / 60, 1)
        words = ngettext("%(count)s minute", "%(count)s minutes", ceil(minutes))
        return words % {"count": plain_number(minutes)}
    hours, rest = divmod(int(seconds // 60), 60)
    words = ngettext("%(count)s hour", "%(count)s hours", hours) % {"count": hours}
    return f"{words} {longest(rest * 60)}" if rest >= 5 else words


def plain_number(value: float) -> str:
    """With two decimals at most: 120, 127.98"""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def size(count: float) -> str:
    """Bytes, by the powers of a thousand: 1.2 GB, 34 MB"""
    for unit, bytes_in_it in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= bytes_in_it:
            value = count / bytes_in_it
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{count / 1e3:.0f} kB"


def share(part: float, whole: float) -> int | None:
    """Whole percent; None when `whole` is 0."""
    return round(100 * part / whole) if whole else None
