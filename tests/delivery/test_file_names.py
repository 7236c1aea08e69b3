"""File names of downloads say what is in them, differ where it differs, and fit every system."""

import re
from urllib.parse import unquote

import pytest
from django.utils import translation

from separations.audio.encoding.formats import format_choices, read_format_choice
from separations.audio.mixing.mix_spec import parse_mix
from separations.delivery.file_names import (
    archive_details,
    ascii_name,
    content_disposition,
    file_name,
    format_details,
    mix_name,
    range_name,
    song_name,
    stem_name,
)

FOUR = ("drums", "bass", "other", "vocals")
MIXES = {
    "": "Mix",
    "speed:75": "Mix",
    "vocals:80:0:m": "Without vocals",
    "vocals:0:0": "Without vocals",
    "vocals:80:0:s": "Vocals only",
    "drums:80:0:s,bass:80:0:s": "Drums + Bass",
    "master:0": "Silence",
}


@pytest.mark.parametrize(
    ("artist", "title", "name"),
    [
        ("Björk", "Jóga", "Björk - Jóga"),
        ("", "Jóga", "Jóga"),
        ("Björk", "björk – Jóga", "björk – Jóga"),
        ("AC/DC", "AC/DC - T.N.T.", "AC_DC - T.N.T"),
        ("U2", "U2000", "U2 - U2000"),
        ("", "..", "song"),
        ("", " \t", "song"),
        ("", "a\u202egnp.exe\nb", "agnp.exeb"),
        ("CON", 'a<b>:"|?*\\', "CON_ - a_b_______"),
        ("", "각", "각"),  # as macOS writes it
    ],
)
def test_a_song_is_named_by_artist_and_title(artist: str, title: str, name: str) -> None:
    assert song_name(artist, title) == name


@pytest.mark.parametrize("text", ["한", "👩🏽\u200d🚀", "é́", "x", "🇰🇷"])
def test_long_names_are_cut_between_characters(text: str) -> None:
    name = file_name(text * 200, text * 300, "Without vocals", ["1m05s-1m30s"], "flac")
    assert len(name.encode()) <= 240
    assert name.endswith(" (Without vocals) 1m05s-1m30s.flac")
    artist, title = name.partition(" (Without")[0].split(" - ")
    assert artist == text * (len(artist) // len(text))
    assert title == text * (len(title) // len(text))
    assert len(title.encode()) > 80


def test_a_mix_is_named_by_what_is_heard() -> None:
    for text, name in MIXES.items():
        with translation.override("ko"):  # files have the same name for everybody
            assert mix_name(parse_mix(text, FOUR)) == name
    texts = ("drums:79:0", "drums:79:1", "master:79", "drums:79:0,vocals:80:0:m")
    names = {mix_name(parse_mix(text, FOUR)) for text in texts}
    assert len(names) == len(texts)
    assert all(re.fullmatch(r"Mix [0-9a-f]{6}", name) for name in names)
    assert mix_name(parse_mix("drums:79:0,speed:60", FOUR)) in names  # it sounds like the first


def test_stems_are_named_in_english() -> None:
    with translation.override("ko"):
        names = [stem_name(name) for name in ("vocals", "instrumental", "no_drums")]
    assert names == ["Vocals", "Instrumental", "Without drums"]


def test_a_range_is_two_times() -> None:
    rate = 44_100
    assert range_name(65 * rate, 90 * rate) == "1m05s-1m30s"
    assert range_name(0, round(12.5 * rate)) == "0m00s-0m12.5s"
    assert range_name(44, 7230 * rate + 441) == "0m00.001s-120m30.01s"


def test_no_two_files_of_a_stem_have_the_same_name() -> None:
    names, archives = set(), set()
    for word, format, rate in format_choices():
        assert read_format_choice(word) == (format, rate) or format.bit_rates
        for hz in (44_100, 48_000):
            details = format_details(format, rate, hz)
            names.add(file_name("a", "b", "Vocals", details, format.extension))
            details = archive_details(format, rate, hz)
            archives.add(file_name("a", "b", "Stems", details, "zip"))
    assert len(names) == len(archives) == 2 * len(format_choices())
    assert {"a - b (Vocals).wav", "a - b (Vocals).mp3", "a - b (Vocals) 48 kHz 24-bit.wav"} < names
    assert {"a - b (Stems).zip", "a - b (Stems) MP3 48 kHz 128 kbps.zip"} < archives


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("a - b (Vocals).wav", "a - b (Vocals).wav"),
        ("!!! - Yadnus (Vocals).wav", "!!! - Yadnus (Vocals).wav"),
        ("50% off (Vocals).wav", "50_ off (Vocals).wav"),
        ("Björk – Jóga (Vocals).wav", "Bjork - Joga (Vocals).wav"),
        ("아이유 - Blueming (Vocals).wav", "Blueming (Vocals).wav"),
        ("누구 - 노래 1 (Mix).wav", "song (Mix).wav"),
        ("노래 (라이브) (Drums) 1m05s-1m30s.flac", "song (Drums) 1m05s-1m30s.flac"),
        ("Wham! - Frühling (Vocals).wav", "Wham! - Fruhling (Vocals).wav"),
        ("P!nk - 노래 - So… What？ (Vocals).wav", "P!nk - So... What_ (Vocals).wav"),
        ("１：２ ＜３＞ é＊｜ (Mix).wav", "1_2 _3_ e__ (Mix).wav"),
        ("Don’t Stop… (Stems).zip", "Don't Stop (Stems).zip"),
    ],
)
def test_programs_that_read_ascii_alone_get_a_name_too(name: str, plain: str) -> None:
    assert ascii_name(name) == plain
    header = content_disposition(name, attach=True)
    assert header.isascii()
    assert header.startswith(f'attachment; filename="{plain}"')
    if name != plain:
        assert unquote(header.partition("filename*=UTF-8''")[2]) == name


def test_quotes_in_a_name_cannot_end_the_header() -> None:
    header = content_disposition('a"; filename="evil.exe (b).wav', attach=False)
    assert header.startswith('inline; filename="a_; filename=_evil.exe (b).wav"; filename*=')
