"""Tags and covers are read from every kind of file, in any character set; hostile ones are not."""

import io
import os
import struct
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mutagen.aiff
import mutagen.apev2
import mutagen.asf
import mutagen.flac
import mutagen.id3
import mutagen.mp4
import mutagen.oggopus
import mutagen.oggvorbis
import mutagen.wave
import pytest
import soundfile

from separations.audio.decoding import tag_formats
from separations.audio.decoding import tags as reading
from separations.audio.decoding.charsets import decode_texts
from separations.audio.decoding.probe import _metadata, probe
from separations.audio.info import MOST_COVER, Tags, is_printable, printable_line
from separations.audio.sandbox.decoder_process import probe_isolated
from tests.support import sounds
from tests.support.tagged import (
    HOSTILE,
    JPEG,
    KINDS,
    PNG,
    apev2,
    fully_tagged,
    id3,
    id3v1,
    riff_info,
    text_frame,
    with_id3,
)

FULL = Tags("봄날", "Ä & Ö", "Album", 7, 12, 1999, "Rock", 127.98, "F#m", JPEG)


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A short song without tags in each format, by its extension."""
    folder, sound = tmp_path_factory.mktemp("songs"), sounds.music(0.3)
    sounds.encode(folder / "a.mp3", sound, "libmp3lame")
    sounds.encode(folder / "a.m4a", sound, "aac")
    sounds.encode(folder / "a.opus", sounds.music(0.3, 48_000), "libopus", 48_000)
    sounds.wav(folder / "a.wav", sound)
    soundfile.write(folder / "a.flac", sound.T, sounds.RATE)
    soundfile.write(folder / "a.ogg", sound.T, sounds.RATE)
    return {path.suffix[1:]: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], Tags]:
    """Read the tags of a file in this process."""

    def read(data: bytes) -> Tags:
        path = tmp_path / "song"
        path.write_bytes(data)
        file = os.open(path, os.O_RDONLY)
        try:
            return probe(file, 60).tags
        finally:
            os.close(file)

    return read


Read = Callable[[bytes], Tags]


# Every kind of tags


@pytest.mark.parametrize("kind", KINDS)
def test_all_tags_of_every_kind_of_file_are_read(
    songs: dict[str, bytes], tmp_path: Path, kind: str
) -> None:
    """In the sandbox, where no module and no character set can be loaded any more."""
    path = tmp_path / "song"
    path.write_bytes(fully_tagged(kind, songs[kind]))
    whole_beats = replace(FULL, bpm=128.0)
    assert probe_isolated(path, 60).tags == (whole_beats if kind == "m4a" else FULL)


def test_tags_of_aiff_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.aiff"
    soundfile.write(path, sounds.music(0.1).T, sounds.RATE)
    file = mutagen.aiff.AIFF(path)
    with_id3(file)
    file.save()
    with path.open("rb") as song:
        assert reading.read_tags(song.fileno(), "aiff", "pcm_s16be", {}) == FULL


def test_tags_of_wma_are_read(tmp_path: Path) -> None:
    path = sounds.encode(tmp_path / "a.wma", sounds.music(0.1), "libmp3lame")
    file = mutagen.asf.ASF(path)
    for name, values in {
        "Title": ["봄날"],
        "Author": ["Ä & Ö", "Ä & Ö"],  # some programs write each twice
        "WM/AlbumTitle": ["Album"],
        "WM/TrackNumber": ["7/12"],
        "WM/Year": ["1999"],
        "WM/Genre": ["Rock"],
        "WM/BeatsPerMinute": ["127.98"],
        "WM/InitialKey": ["F#m"],
    }.items():
        file[name] = values
    picture = struct.pack("<BI", 3, len(JPEG)) + "image/jpeg\0\0".encode("utf-16-le") + JPEG
    file["WM/Picture"] = [picture]
    file.save()
    with path.open("rb") as song:
        assert reading.read_tags(song.fileno(), "asf", "wmav2", {}) == FULL


def test_tags_that_only_ffmpeg_knows_are_taken(tmp_path: Path) -> None:
    """As those of Matroska and CAF."""
    path = tmp_path / "a"
    path.write_bytes(b"nothing that mutagen knows")
    known = {"TITLE": "T", "ARTIST": "A", "ALBUM": "B", "PART_NUMBER": "3", "DATE_RELEASED": "2001"}
    with path.open("rb") as song:
        found = reading.read_tags(song.fileno(), "matroska", "opus", known)
    assert found == Tags("T", "A", "B", track=3, year=2001)


def test_apev2_behind_the_last_frame_is_read(songs: dict[str, bytes], read: Read) -> None:
    cover = {"Cover Art (Front)": b"cover.jpg\0" + JPEG}
    data = songs["mp3"] + apev2(
        {"Title": "T", "Artist": "A", "Year": "2001", "Track": "3/4"}, cover
    )
    assert read(data) == Tags("T", "A", track=3, track_total=4, year=2001, cover=JPEG)


def test_the_first_kind_of_tags_that_has_a_field_gives_it(
    songs: dict[str, bytes], read: Read
) -> None:
    song = id3(text_frame("TIT2", b"\0From ID3")) + songs["mp3"]
    song += apev2({"Title": "From APE", "Artist": "A"}) + id3v1(b"From ID3v1", b"B", b"Album")
    found = read(song)
    assert (found.title, found.artist, found.album) == ("From ID3", "B", "Album")


# Character sets

LANGUAGES = {
    "cp1252": ("Café Señorita", "Beyoncé", "Motörhead", "Hoppípolla", "À la folie", "Don’t", "Öde"),
    "cp1251": ("Группа крови", "Кино", "ДДТ", "Би-2", "Пугачёва", "Океан Ельзи – Київ", "Осень"),
    "cp949": (
        "봄날",
        "방탄소년단",
        "밤편지",
        "IU (아이유)",
        "서태지와 아이들",
        "벚꽃 엔딩",
        "노래",
    ),
    "cp932": (
        "さくら",
        "宇多田ヒカル",
        "椎名林檎",
        "千本桜",
        "上を向いて歩こう",
        "サザンオールスターズ",
        "紅蓮華",
        "ＹＯＡＳＯＢＩ",
    ),
    "cp1250": ("Życie", "Łódź", "Chłopaki"),
    "cp1253": ("Μίκης Θεοδωράκης", "Καλημέρα", "Το τραγούδι"),
    "koi8_r": ("Группа крови", "Земфира"),
    "gb18030": ("周杰伦", "月亮代表我的心", "周杰伦 青花瓷", "蔡依林 日不落"),
    "big5": ("周杰倫", "鄧麗君", "月亮代表我的心", "五月天 倔強"),
    "utf-8": ("Café", "봄날", "Кино", "さくら"),
    "utf-16": ("Café", "봄날", "Кино"),
}
TEXTS = [(charset, text) for charset, texts in LANGUAGES.items() for text in texts]


@pytest.mark.parametrize(("charset", "text"), TEXTS)
def test_texts_without_a_character_set_are_read(charset: str, text: str) -> None:
    assert decode_texts({"title": text.encode(charset)}) == {"title": text}


@pytest.mark.parametrize("text", [text for charset, text in TEXTS if charset != "utf-16"])
def test_what_is_unicode_is_left_alone(text: str) -> None:
    """However odd it is: "ÆØÅ" could be Cyrillic by its bytes."""
    assert decode_texts({"title": text, "artist": text}) == {"title": text, "artist": text}
    assert decode_texts({"title": "ÆØÅ", "artist": "Ñ"}) == {"title": "ÆØÅ", "artist": "Ñ"}


def test_a_few_capitals_again_and_again_are_left_alone() -> None:
    texts = {"artist": "Ölafur", "title": "ÖÖÖ", "album": "ÄÄÄ"}
    assert decode_texts(dict(texts)) == texts


def test_all_texts_of_a_file_are_of_one_character_set() -> None:
    """One letter says little, beside others it says enough."""
    texts = {"title": "Я", "artist": "Земфира", "album": "Best of"}
    raw = {name: text.encode("cp1251") for name, text in texts.items()}
    assert decode_texts(dict(raw)) == texts


def test_text_that_was_taken_for_latin_1_is_repaired() -> None:
    utf8 = "Señorita – Café".encode().decode("cp1252")
    cyrillic = "Группа крови".encode("cp1251").decode("latin-1")
    assert decode_texts({"title": utf8}) == {"title": "Señorita – Café"}
    assert decode_texts({"title": cyrillic}) == {"title": "Группа крови"}


@pytest.mark.parametrize(
    "data", [b"\x81\x8d\x90\x9d", bytes(range(0x80, 0xA0)), b"\xff\xfe\x00\xd8"]
)
def test_what_is_no_text_is_left_out(data: bytes) -> None:
    assert decode_texts({"title": data, "artist": "A"}) == {"artist": "A"}
    assert decode_texts({"title": "Caf\ufffd"}) == {}


@pytest.mark.parametrize(
    ("charset", "text"),
    [("latin-1", "Café"), ("cp1251", "Кино"), ("cp949", "봄날"), ("cp932", "さくら")],
)
def test_mislabelled_tags_are_read(
    songs: dict[str, bytes], read: Read, charset: str, text: str
) -> None:
    raw = text.encode(charset)
    for song in (
        id3(text_frame("TIT2", b"\0" + raw), text_frame("TPE1", b"\0" + raw)) + songs["mp3"],
        songs["mp3"] + id3v1(raw, raw),
        riff_info(songs["wav"], INAM=raw, IART=raw),
    ):
        found = read(song)
        assert (found.title, found.artist) == (text, text)


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        ("utf-8", "Группа крови на рукаве"),
        ("cp949", "너의 의미 (Feat. 김창완) 그리고 밤"),
        ("cp932", "東京は夜の七時を過ぎても まだ明るい"),
    ],
)
def test_a_text_that_id3v1_cuts_inside_a_character_is_read(
    songs: dict[str, bytes], read: Read, charset: str, text: str
) -> None:
    raw = text.encode(charset)[:30]
    with pytest.raises(UnicodeError):
        raw.decode(charset)
    found = read(songs["mp3"] + id3v1(raw, text[:3].encode(charset)))
    assert len(found.title) > 10
    assert text.startswith(found.title)
    assert found.artist == text[:3].strip()


def test_a_name_of_the_track_is_not_the_title_of_the_song() -> None:
    whole, track = {"title": "Song"}, {"title": "Stereo", "TITLE": "Stereo", "encoder": "x"}
    assert _metadata("matroska", whole, track) == {"title": "Song", "encoder": "x"}
    assert _metadata("ogg", {}, {"title": "Song"}) == {"title": "Song"}
    assert _metadata("wav", whole, {"title": "a"}) == whole


@pytest.mark.parametrize("text", ["می\u200cخواهم", "👨\u200d👩\u200d👧", "क\u094d\u200dष"])
def test_joiners_stay_and_other_unseen_marks_go(text: str) -> None:
    assert printable_line(text) == text
    assert is_printable(text)
    assert printable_line("co\u00adop \u202e\ta\x1b") == "coop a"
    assert not is_printable("\u202e")


def test_utf_16_that_is_labelled_latin_1_is_read(songs: dict[str, bytes], read: Read) -> None:
    for text in ("Café", "봄날"):
        frame = text_frame("TIT2", b"\0" + text.encode("utf-16"))
        assert read(id3(frame) + songs["mp3"]).title == text


def test_broken_vorbis_comments_are_read_as_bytes(songs: dict[str, bytes], read: Read) -> None:
    """mutagen puts replacement characters in; FFmpeg still knows the bytes."""
    data = io.BytesIO(songs["flac"])
    file = mutagen.flac.FLAC(data)
    file["title"] = "Caf@ Se@orita"
    data.seek(0)
    file.save(data)
    raw = data.getvalue().replace(b"Caf@ Se@orita", b"Caf\xe9 Se\xf1orita")
    assert read(raw).title == "Café Señorita"


def test_the_sandbox_knows_all_character_sets(songs: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    frames = [text_frame("TIT2", b"\0" + "봄날".encode("cp949"))]
    frames.append(text_frame("TALB", b"\1" + "앨범".encode("utf-16")))
    frames.append(text_frame("TCON", b"\2" + "장르".encode("utf-16-be")))
    path.write_bytes(id3(*frames, cover=JPEG) + songs["mp3"])
    assert probe_isolated(path, 60).tags == Tags("봄날", album="앨범", genre="장르", cover=JPEG)


CASES = {
    "mp3_id3v1_latin1.mp3": Tags("Café Señorita", "Beyoncé", genre="Classic Rock"),
    "mp3_apev2_cover_at_end.mp3": Tags("Tail Title"),  # whose cover is no JPEG
    "mp3_all_tags_and_cover.mp3": Tags(
        "Full Title", "Some Artist", "Some Album", 7, 12, 1999, "Rock", 120.0, "Am"
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_tags_of_files_that_went_wrong(name: str) -> None:
    with sounds.shared(f"../cases/{name}").open("rb") as file:
        found = reading.read_tags(file.fileno(), "mp3", "mp3float", {})
    assert replace(found, cover=b"") == CASES[name]
    assert len(found.cover) == (766 if name.startswith("mp3_all") else 0)


def test_a_wav_of_another_country_that_went_wrong(read: Read) -> None:
    data = sounds.shared("../cases/wav_info_cp1252.wav").read_bytes()
    assert read(data) == Tags("Café del Mar", "Beyoncé")


# Values


@pytest.mark.parametrize(
    ("frame", "text", "wanted"),
    [
        ("TRCK", "03", Tags(track=3)),
        ("TRCK", "3/2", Tags(track=3)),
        ("TRCK", "0/12", Tags()),
        ("TRCK", "A1", Tags()),
        ("TYER", "2019", Tags(year=2019)),
        ("TYER", "0000", Tags()),
        ("TBPM", "127,98", Tags(bpm=127.98)),
        ("TBPM", "0", Tags()),
        ("TBPM", "fast", Tags()),
        ("TBPM", "1e9", Tags()),
        ("TKEY", "8A", Tags(key="8A")),
        ("TKEY", "x" * 21, Tags()),
        ("TIT2", " a\n\tb\x1b ", Tags("a b")),
        ("TIT2", "x" * 5000, Tags("x" * 200)),
        ("TIT2", "\x1b", Tags()),
        ("TCON", "(17)(6)", Tags(genre="Rock, Grunge")),
    ],
)
def test_odd_values(
    songs: dict[str, bytes], read: Read, frame: str, text: str, wanted: Tags
) -> None:
    assert read(id3(text_frame(frame, b"\0" + text.encode())) + songs["mp3"]) == wanted


def test_a_cover_is_a_picture_of_bounded_size(songs: dict[str, bytes], read: Read) -> None:
    def cover(*pictures: tuple[int, bytes]) -> bytes:
        frames = (b"\0image/jpeg\0" + bytes([kind]) + b"\0" + data for kind, data in pictures)
        return read(id3(*(text_frame("APIC", frame) for frame in frames)) + songs["mp3"]).cover

    assert cover((0, PNG)) == PNG
    assert cover((0, PNG), (3, JPEG)) == JPEG
    assert cover((3, JPEG.ljust(MOST_COVER + 1)), (0, PNG)) == PNG
    assert cover((3, b"<svg onload=alert(1)>"), (3, b"GIF89a")) == b""
    assert cover((3, JPEG.ljust(MOST_COVER))) == JPEG.ljust(MOST_COVER)


# Hostile tags


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tags_are_no_tags_and_the_song_is_read(
    songs: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    kind, make = HOSTILE[name]
    path = tmp_path / f"a.{kind}"
    path.write_bytes(make(songs[kind]))
    info = probe_isolated(path, 60)
    assert info.frames >= 0.29 * sounds.RATE
    assert info.tags.cover == b""


def test_reading_tags_takes_bounded_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "CPU_SECONDS", 0.1)
    path = tmp_path / "a.mp3"
    path.write_bytes(id3(b"".join([text_frame("TXXX", b"\0a\0b", 4)] * 200_000), version=4))
    with path.open("rb") as song:
        began = time.process_time()
        found = reading.read_tags(song.fileno(), "mp3", "mp3float", {"title": "T"})
    assert time.process_time() - began < 1.0
    assert found == Tags("T")


def test_a_tag_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    with path.open("wb") as file:
        file.write(b"ID3\3\0\0" + b"\x7f" * 4)  # 256 MB
        file.truncate(100_000_000)
    tracemalloc.start()
    try:
        with path.open("rb") as song:
            assert reading.read_tags(song.fileno(), "mp3", "mp3float", {"title": "T"}) == Tags("T")
        assert tracemalloc.get_traced_memory()[1] < 3 * tag_formats.MOST_READ
    finally:
        tracemalloc.stop()
