"""File names of downloads: "Artist - Title (Vocals) 1m05s-1m30s.flac", in the song's own script.

What is in the file is said in English whatever the reader's language, so that the same request
always gets the same name, and the same ZIP.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from urllib.parse import quote

from django.utils import translation
from django.utils.translation import gettext
from pathvalidate import sanitize_filename

from separations.audio.encoding.formats import DEFAULT_FORMAT, FORMATS, Format
from separations.audio.info import SAMPLE_RATE
from separations.audio.mixing.gain_laws import UNITY
from separations.audio.mixing.mix_spec import MixSettings
from separations.delivery.stem_names import stem_label

MOST_BYTES = 240  # file systems hold 255; browsers add " (1)"
MOST_ARTIST_BYTES = MOST_OF_WHAT = 80
LANGUAGE = "en"
# Invisible characters that reverse what follows, or that nobody could type; joiners hold emoji and
# Indic letters together, and stay.
JOINERS = "\u200c\u200d"
LETTERS_OF_FLAGS = "".join(map(chr, range(0x1F1E6, 0x1F200)))  # each flag is two of them
DASHES = "-\u2010\u2012\u2013\u2014"
REPEATED = rf"\s*[{DASHES}:]\s+"
ASCII_OF = str.maketrans(
    {"’": "'", "‘": "'", "“": "'", "”": "'", "…": "...", "ß": "ss", "æ": "ae", "Æ": "AE"}
    | {"ø": "o", "Ø": "O", "œ": "oe", "Œ": "OE", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "ı": "i"}
    | {"þ": "th", "Þ": "Th", "ð": "d", "Ð": "D"}
    | dict.fromkeys(DASHES, "-")
)


def file_name(artist: str, title: str, what: str, details: Iterable[str], extension: str) -> str:
    """The name of a file, at most MOST_BYTES in UTF-8, that every file system takes.

    Args:
        what: is in the file, "Vocals" for example.
        details: which of several such files it is, shortest first; without empty ones.
    """
    end = " ".join([f" ({_cut(_clean(what), MOST_OF_WHAT)})", *filter(None, details)])
    end += f".{extension}"
    song = song_name(artist, title, MOST_BYTES - len(end.encode()))
    return str(sanitize_filename(song + end, replacement_text="_", max_len=MOST_BYTES))


def song_name(artist: str, title: str, most_bytes: int = MOST_BYTES) -> str:
    """Artist and title as part of a file name; the title alone where it begins with the artist."""
    artist, title = _clean(artist), _clean(title)
    if artist and re.match(re.escape(artist) + REPEATED, title, re.IGNORECASE):
        artist = ""
    lead = f"{_cut(artist, MOST_ARTIST_BYTES)} - " if artist else ""
    return (lead + _cut(title, most_bytes - len(lead.encode()))).strip(" ") or "song"


def _clean(text: str) -> str:
    text = unicodedata.normalize("NFC", text)
    visible = (c for c in text if c in JOINERS or unicodedata.category(c) not in ("Cc", "Cf", "Cs"))
    clean = sanitize_filename("".join(visible), replacement_text="_", max_len=1000)
    return re.sub(r"\s+", " ", clean).strip(" .")


def _cut(text: str, most: int) -> str:
    """The beginning of a text, `most` bytes at most, without half a character at its end."""
    if len(text.encode()) <= most:
        return text
    kept = text.encode()[: max(0, most)].decode(errors="ignore")
    following = text[len(kept)]
    while kept and (_continues(following) or kept[-1] == "\u200d"):
        following, kept = kept[-1], kept[:-1]
    flags = len(kept) - len(kept.rstrip(LETTERS_OF_FLAGS))
    return kept[: len(kept) - flags % 2].rstrip(" .")


def _continues(character: str) -> bool:
    """Whether it is drawn together with the one before: accents, joiners, skin colours."""
    is_skin = "\U0001f3fb" <= character <= "\U0001f3ff"
    return is_skin or character in JOINERS or unicodedata.category(character) in ("Mn", "Me", "Mc")


# What is in a file


def stem_name(name: str) -> str:
    with translation.override(LANGUAGE):
        return stem_label(name)


def mix_name(mix: MixSettings) -> str:
    """A mix in words where these say all, else "Mix" and a few digits that are its alone."""
    heard = mix.audible
    if not heard:
        return "Silence"
    if mix.master != UNITY or any((s.volume, s.pan) != (UNITY, 0) for s in heard):
        return f"Mix {hashlib.sha256(mix.canonical_text.encode()).hexdigest()[:6]}"
    silent = [strip for strip in mix.strips if strip not in heard]
    with translation.override(LANGUAGE):
        if not silent:
            return "Mix"
        if len(heard) == 1:
            return gettext("%(stem)s only") % {"stem": stem_label(heard[0].name)}
        if len(silent) == 1:
            return gettext("Without %(stem)s") % {"stem": stem_label(silent[0].name).lower()}
        return " + ".join(stem_label(strip.name) for strip in heard)


# Which of several files it is


def range_name(start: int, stop: int) -> str:
    """Samples at 44.1 kHz as times: 1m05s-1m30.5s"""
    return f"{_time(start)}-{_time(stop)}"


def _time(frame: int) -> str:
    minutes, milliseconds = divmod(round(frame / SAMPLE_RATE * 1000), 60_000)
    seconds, rest = divmod(milliseconds, 1000)
    fraction = f".{rest:03}".rstrip("0") if rest else ""
    return f"{minutes}m{seconds:02}{fraction}s"


def format_details(format: Format, bit_rate: int, rate: int) -> list[str]:
    """What tells a file from others of its extension: rate, word length, bit rate, if unusual."""
    named = next(each for each in FORMATS.values() if each.extension == format.extension)
    return [
        "" if rate == SAMPLE_RATE else f"{rate / 1000:g} kHz",
        "" if format.name == named.name else format.short_name,
        "" if bit_rate == format.default_bit_rate else f"{bit_rate} kbps",
    ]


def archive_details(format: Format, bit_rate: int, rate: int) -> list[str]:
    """The same for a ZIP, which may hold files of any format."""
    kind = "" if format.extension == FORMATS[DEFAULT_FORMAT].extension else format.extension.upper()
    return [kind, *format_details(format, bit_rate, rate)]


# Headers


def content_disposition(name: str, *, attach: bool) -> str:
    """The header Content-Disposition with a file's name (RFC 6266).

    Programs that do not read `filename*` (curl -OJ) get `filename` in ASCII.
    """
    kind = "attachment" if attach else "inline"
    plain = ascii_name(name)
    header = f'{kind}; filename="{plain}"'
    return header if plain == name else f"{header}; filename*=UTF-8''{quote(name, safe='')}"


def ascii_name(name: str) -> str:
    """A file name in ASCII: accents are dropped, other scripts left out.

    Without quotes and backslashes, which end or escape it, percent signs, which some decode, and
    what letters of full width become that file systems do not take.
    """
    split = unicodedata.normalize("NFKD", name.translate(ASCII_OF))
    plain = re.sub(r'["\\%/:<>|?*]', "_", split.encode("ascii", "ignore").decode())
    if name.isascii():
        return plain
    song, bracket, end = plain.rpartition(" (")
    if not bracket:
        song, dot, end = plain.rpartition(".")
        bracket = dot
    song = re.sub(r"^[^A-Za-z0-9]* - |^[^A-Za-z0-9(]+| - [^A-Za-z0-9]*$", "", song)
    song = re.sub(r"\s+", " ", song.replace(" -  - ", " - ")).strip(" -.")
    return f"{song if re.search('[A-Za-z]', song) else 'song'}{bracket}{end}"
