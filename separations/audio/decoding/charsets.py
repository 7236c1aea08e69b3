"""Decode tags of unknown character set: UTF-8, UTF-16, and the 8-bit sets of several countries.

Many programs wrote tags in the character set of their own country and labelled them as Latin-1, or
not at all. Such texts are too short for detectors that count letters (charset-normalizer takes
"Beyoncé" for cp1250, for example). Here every set is tried, and its text judged by what no language
does: scripts that change inside a word, a capital after a small letter, symbols between letters.
Some short names stay what they are not: one Chinese or Cyrillic letter alone, Czech and Hungarian
names that look Western ("Dvořák", "Hős"), GBK whose bytes are Korean syllables or UTF-8 ("江南").
"""

import codecs
import unicodedata
from collections.abc import Iterable

# Python's names, the likelier first, each with what it takes to be chosen over the first.
CHARSETS = {
    "cp1252": 0.0,  # Western Europe; Latin-1 but for its controls
    "cp1251": 1.0,  # Cyrillic
    "cp949": 1.0,  # Korean
    "cp932": 1.0,  # Japanese
    "cp1250": 1.5,  # Central Europe
    "cp1253": 1.5,  # Greek
    "koi8_r": 1.5,  # Cyrillic, in mails of the nineties
    "gb18030": 1.5,  # Chinese
    "big5": 2.0,  # of Taiwan and Hong Kong
}
# The lead bytes of the frequent Chinese characters, which come first in each set.
FIRST_ROW = {"gb18030": 0xB0, "cp932": 0x88, "big5": 0xA4}
RARE_FROM = {"gb18030": 0xD8, "cp932": 0x98, "big5": 0xC9}
# By every name that is used here or in mutagen, loaded now: the sandbox has no files, from which
# Python would load them at their first use.
for name in (
    *CHARSETS,
    *("ascii", "latin-1", "latin1", "utf-8", "utf8", "utf-16", "utf16"),
    *("utf-16-le", "utf-16-be", "utf_16_le", "utf_16_be", "gb2312", "euc_kr"),
):
    codecs.lookup(name)
ACCEPTED = 1.2  # penalty a character beyond which a text is no text
APOSTROPHES, MARKS = "’‘´", "“”«»„–—…¿¡°ªº·"
EAST_SLAVIC = {chr(point) for point in range(0x410, 0x450)} | set("ЁёЄєІіЇїҐґЎў")
VOWELS = set("аеиоуыэюяёієїαεηιουωάέήίόύώϊϋΐΰ")
# Of texts that are labelled as Unicode, so many letters must look wrong before they are doubted.
EVIDENCE, DIFFERENT = 6, 5
ID3V1_BYTES = 30  # of a text, which may end inside a character


def decode_texts(texts: dict[str, str | bytes]) -> dict[str, str]:
    """The texts of one source by their names; those that cannot be decoded are left out.

    Args:
        texts: bytes of unknown character set, taken to be the same in all, or text that was
            decoded already: it is repaired where it was taken for Latin-1.
    """
    found = {name: _unicode(text) for name, text in texts.items()}
    unknown = {name: text for name, text in found.items() if isinstance(text, bytes)}
    charset = _charset_of(unknown.values())
    decoded = {name: text for name, text in found.items() if isinstance(text, str)}
    if charset is not None:
        decoded |= {name: _decode(text, charset) for name, text in unknown.items()}
    doubtful = {name: text for name, text in decoded.items() if isinstance(texts[name], str)}
    decoded |= _relabelled(doubtful)
    return {name: text for name, text in decoded.items() if "\N{REPLACEMENT CHARACTER}" not in text}


def _unicode(text: str | bytes) -> str | bytes:
    """Unicode text where it certainly is, else the bytes."""
    if isinstance(text, str):
        for charset in ("latin-1", "cp1252"):
            try:
                return text.encode(charset).decode()
            except UnicodeError:
                continue
        return text
    if text.startswith((b"\xff\xfe", b"\xfe\xff")):
        even = text + bytes(len(text) % 2)
        return even.decode("utf-16", errors="replace").replace("\0", "")
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        start = text[: error.start]
        is_cut = len(text) == ID3V1_BYTES and error.end == len(text) and not start.isascii()
        return _unicode(start) if is_cut else text


def _decode(text: bytes, charset: str) -> str:
    """Without the half of a character at which ID3v1 cut the text. Raises UnicodeError."""
    try:
        return text.decode(charset)
    except UnicodeDecodeError as error:
        if len(text) != ID3V1_BYTES or error.start < len(text) - 3:
            raise
        return text[: error.start].decode(charset)


def _relabelled(texts: dict[str, str]) -> dict[str, str]:
    """Texts that were decoded as Latin-1 before they became Unicode, decoded as what they are."""
    raw: dict[str, bytes] = {}
    for name, text in texts.items():
        try:
            raw[name] = text.encode("latin-1")
        except UnicodeError:
            return {}
    high = [byte for text in raw.values() for byte in text if byte >= 0x80]
    # The same few letters again and again, as in "ÖÖÖ", are no evidence.
    is_doubtful = len(high) >= EVIDENCE and len(set(high)) >= DIFFERENT
    charset = _charset_of(raw.values()) if is_doubtful else None
    if charset in (None, "cp1252", "cp1250"):
        return {}
    return {name: _decode(text, charset) for name, text in raw.items()}


def _charset_of(texts: Iterable[bytes]) -> str | None:
    """The character set in which all texts look most like words; None if none does."""
    all_high = [text for text in texts if not text.isascii()]
    if not all_high:
        return "ascii"
    penalties = {name: _penalty(all_high, name) + prior for name, prior in CHARSETS.items()}
    best = min(penalties, key=lambda name: penalties[name])
    if penalties[best] == float("inf"):
        return None
    high = sum(char > "\x7f" for text in all_high for char in _decode(text, best))
    return best if penalties[best] - CHARSETS[best] <= ACCEPTED * high else None


def _penalty(data: list[bytes], charset: str) -> float:
    """How unlike texts the data are in a character set; infinite where they cannot be decoded."""
    try:
        text = "\n".join(_decode(each, charset) for each in data)
    except UnicodeError:
        return float("inf")
    high = (at for at, char in enumerate(text) if char > "\x7f")
    return sum(_of_character(text, at, charset) for at in high) + sum(map(_of_word, _words(text)))


def _of_character(text: str, at: int, charset: str) -> float:
    char = text[at]
    category = unicodedata.category(char)
    if category in ("Cc", "Cn", "Co", "Cs", "Cf"):
        return 10.0
    before, after = text[at - 1 : at], text[at + 1 : at + 2]
    if category[0] != "L":
        if char in APOSTROPHES or (char in MARKS and not (before.isalpha() and after.isalpha())):
            return 0.0
        return 3.0 if before.isalpha() or after.isalpha() or category[0] == "S" else 0.5
    penalty = _rarity(char, charset)
    if before.isalpha() and _script(before) != _script(char):
        penalty += 3.0
    if after.isascii() and after.isalpha() and _script(char) != "latin":
        penalty += 3.0
    if charset == "cp949" and _is_hanja(before) != _is_hanja(char) and before.isalpha():
        penalty += 3.0
    if before.islower() and char.isupper():
        penalty += 2.0
    return penalty


def _rarity(char: str, charset: str) -> float:
    """Penalty of a letter that words of any length seldom have."""
    if "\uff61" <= char <= "\uff9f":  # katakana of half width: any byte is one
        return 2.5
    if "\u4e00" <= char <= "\u9fff":
        if charset == "cp949":
            return 2.0  # Koreans write Hangul
        row = char.encode(charset)[0]
        return 0.3 if FIRST_ROW[charset] <= row < RARE_FROM[charset] else 1.5
    if "\uff21" <= char <= "\uff5a":  # Latin letters of full width
        return 0.3
    if "\uac00" <= char <= "\ud7a3":
        return 0.0 if len(char.encode("euc_kr")) == 2 else 3.0  # others are spelled out
    if _script(char) == "cyrillic":
        return 0.0 if char in EAST_SLAVIC else 1.5
    return 0.0 if char.isalpha() and ord(char) < 0x3100 else 2.0


def _is_hanja(char: str) -> bool:
    return "\u4e00" <= char <= "\u9fff"


def _script(char: str) -> str:
    """The script of a letter, as far as it matters here."""
    point = ord(char)
    if point < 0x250:
        return "latin"
    if point < 0x400:
        return "greek"
    return "cyrillic" if point < 0x530 else "east"


def _words(text: str) -> list[str]:
    return "".join(char if char.isalpha() else " " for char in text).split()


def _of_word(word: str) -> float:
    """Penalty of a word: few letters of Latin words are beyond ASCII, a fifth are vowels."""
    high = [char for char in word if char > "\x7f"]
    if not high:
        return 0.0
    if _script(high[0]) in ("cyrillic", "greek"):
        vowels = sum(char in VOWELS for char in word.lower())
        return 2.0 if len(word) > 2 and not word.isupper() and vowels < 0.2 * len(word) else 0.0
    if _script(high[0]) != "latin":
        return 0.0
    if len(high) == len(word):
        return 0.0 if len(word) == 1 else 2.0 * len(word) - 1.0
    return max(0.0, 1.5 * (len(high) - 0.6 * len(word)))
