"""Chained Ogg files and joined MP3s, decoded part by part; and tags that lie between and behind."""

from pathlib import Path
from random import Random

import numpy as np
import pytest
import soundfile

from separations.audio.decoding import mp3_frames, ogg_links
from separations.audio.decoding.source import open_source
from tests.fuzz.inputs import ape_tag
from tests.support import sounds
from tests.support.containers import film
from tests.support.decoded import facts, heard, refused

FIRST, SECOND = sounds.music(1.0), sounds.music(0.7, seed=1)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("parts")
    made = {name: folder / name for name in ("low.ogg", "high.ogg", "slow.ogg", "mono.ogg")}
    for name, song, rate, quality in (
        ("low.ogg", FIRST, 44_100, 0.9),
        ("high.ogg", SECOND, 44_100, 0.1),
        ("slow.ogg", sounds.music(1.0, 32_000), 32_000, 0.5),
        ("mono.ogg", SECOND[:1], 44_100, 0.5),
    ):
        soundfile.write(made[name], song.T, rate, "VORBIS", compression_level=quality)
    made["flac.oga"] = film(folder / "flac.oga", [("flac", SECOND)], container="ogg")
    for name, song, rate in (
        ("one.mp3", FIRST, 44_100),
        ("two.mp3", SECOND, 44_100),
        ("slow.mp3", sounds.music(1.0, 32_000), 32_000),
        ("mono.mp3", SECOND[:1], 44_100),
        ("opus.opus", sounds.music(1.0, 48_000), 48_000),
    ):
        codec = "libopus" if name.endswith("opus") else "libmp3lame"
        layout = "mono" if "mono" in name else "stereo"
        made[name] = sounds.encode(folder / name, song, codec, rate, layout, title=name)
    return made


def joined(folder: Path, *files: Path | bytes) -> Path:
    path = folder / "joined"
    path.write_bytes(
        b"".join(each if isinstance(each, bytes) else each.read_bytes() for each in files)
    )
    return path


@pytest.mark.parametrize(
    "names",
    [
        ("low.ogg", "high.ogg"),
        ("high.ogg", "low.ogg", "high.ogg"),
        ("low.ogg", "mono.ogg"),
        ("mono.ogg", "low.ogg"),
        ("low.ogg", "flac.oga"),
        ("flac.oga", "low.ogg"),
        ("one.mp3", "two.mp3"),
        ("one.mp3", "mono.mp3"),
        ("mono.mp3", "one.mp3", "two.mp3"),
    ],
    ids="+".join,
)
def test_each_part_is_decoded_as_if_it_were_alone(
    tmp_path: Path, parts: dict[str, Path], names: tuple[str, ...]
) -> None:
    path = joined(tmp_path, *(parts[name] for name in names))
    alone = np.concatenate([heard(parts[name]) for name in names], axis=1)
    np.testing.assert_array_equal(heard(path), alone)
    info = facts(path)
    assert (info.frames, info.channels) == (alone.shape[1], 2)


@pytest.mark.parametrize(
    "names",
    [
        ("low.ogg", "slow.ogg"),
        ("low.ogg", "opus.opus"),
        ("opus.opus", "low.ogg"),
        ("one.mp3", "slow.mp3"),
        ("slow.mp3", "one.mp3"),
    ],
    ids="+".join,
)
def test_parts_of_other_rates_are_resampled_to_the_first_ones(
    tmp_path: Path, parts: dict[str, Path], names: tuple[str, str]
) -> None:
    first, second = (heard(parts[name]) for name in names)
    rate = facts(parts[names[0]]).sample_rate
    path = joined(tmp_path, *(parts[name] for name in names))
    info, song = facts(path), heard(path)
    assert info.sample_rate == rate
    assert info.frames == song.shape[1] == pytest.approx(2 * rate, abs=8)
    np.testing.assert_array_equal(song[:, :rate], first)
    ours, theirs = (
        np.sqrt(np.mean(np.square(each))) for each in (song[:, first.shape[1] :], second)
    )
    assert ours == pytest.approx(theirs, rel=0.1)


def test_a_change_of_channels_is_part_of_a_songs_identity(
    tmp_path: Path, parts: dict[str, Path]
) -> None:
    """Else a row of left and right could be taken for a mono song of twice the length."""
    mono = SECOND.T.reshape(1, -1)
    names = {}
    for name, song in (("stereo", SECOND), ("mono", mono)):
        soundfile.write(tmp_path / name, song.T, sounds.RATE, format="FLAC")
        film(tmp_path / f"{name}.oga", [("flac", song)], container="ogg")
        names[name] = joined(tmp_path, parts["flac.oga"], tmp_path / f"{name}.oga")
        names[name] = names[name].rename(tmp_path / f"{name}.joined")
    assert facts(names["stereo"]).samples_sha256 != facts(names["mono"]).samples_sha256


def test_rate_and_channels_may_change_without_a_header_in_between(
    tmp_path: Path, parts: dict[str, Path]
) -> None:
    """As players play them: an ADTS stream, and MP3s without a first frame that counts them."""
    stereo = sounds.encode(tmp_path / "a.aac", FIRST, "aac").read_bytes()
    mono = sounds.encode(tmp_path / "b.aac", SECOND[:1], "aac", layout="mono").read_bytes()
    info = facts(joined(tmp_path, stereo, mono))
    assert info.channels == 2
    assert info.seconds == pytest.approx(1.7, abs=0.1)
    surround = [
        film(tmp_path / f"{rate}.aac", [("aac", np.repeat(FIRST[:1], 6, axis=0))], rate=rate)
        for rate in (44_100, 48_000)
    ]
    path = joined(tmp_path, *surround)
    info = facts(path)
    assert (info.channels, info.sample_rate) == (6, 44_100)
    assert heard(path).shape == (2, info.frames)
    bare = [_without_count(parts[name].read_bytes()) for name in ("one.mp3", "slow.mp3")]
    info = facts(joined(tmp_path, *bare))
    assert info.sample_rate == 44_100
    assert info.seconds == pytest.approx(2.0, abs=0.2)


def _without_count(mp3: bytes) -> bytes:
    """The frames of sound alone."""
    place = mp3.index(b"\xff\xfb")
    header = mp3_frames.read_header(mp3[place : place + 4])
    assert header is not None
    return mp3[place + header.size :]


def test_a_few_stray_frames_in_front_do_not_decide_the_rate_of_a_song(
    tmp_path: Path, parts: dict[str, Path]
) -> None:
    stray = _without_count(parts["slow.mp3"].read_bytes())
    header = mp3_frames.read_header(stray[:4])
    assert header is not None
    info = facts(joined(tmp_path, stray[: 4 * header.size], parts["one.mp3"]))
    assert info.sample_rate == 44_100
    assert info.seconds == pytest.approx(1.1, abs=0.1)


LYRICS = b"LYRICSBEGININD00002" + b"TAG word \xff\xfb\x90" * 40 + b"000379LYRICS200"
BEHIND = {
    "ID3v1": b"TAG" + bytes(125),
    "APEv2 with a cover": ape_tag(Random(1).randbytes(100_000)),
    "Lyrics3": LYRICS + b"TAG" + bytes(125),
    "zeros": bytes(100_000),
    "anything": Random(2).randbytes(100_000),
    "ID3v2": b"ID3\4\0\0\0\0\x10\0" + Random(3).randbytes(2_048),
}


@pytest.mark.parametrize("kind", BEHIND)
@pytest.mark.parametrize("counts", [True, False], ids=["with a count", "without one"])
def test_what_lies_behind_an_mp3_is_neither_sound_nor_missing(
    tmp_path: Path, parts: dict[str, Path], kind: str, counts: bool
) -> None:
    mp3 = parts["one.mp3"].read_bytes()
    mp3 = mp3 if counts else _without_count(mp3)
    alone = facts(joined(tmp_path, mp3))
    assert facts(joined(tmp_path, mp3, BEHIND[kind])).samples_sha256 == alone.samples_sha256
    if counts:
        assert alone.frames == FIRST.shape[1]
        twice = facts(joined(tmp_path, mp3, BEHIND[kind], parts["two.mp3"]))
        assert twice.frames == FIRST.shape[1] + SECOND.shape[1]


def test_an_mp3_that_counts_more_frames_than_it_has_is_cut_off(
    tmp_path: Path, parts: dict[str, Path]
) -> None:
    long = sounds.encode(tmp_path / "l.mp3", sounds.music(4.0), "libmp3lame").read_bytes()
    for front in (b"", parts["one.mp3"].read_bytes()):
        path = joined(tmp_path, front, long[: len(long) // 2], BEHIND["ID3v1"])
        assert refused(path).code == "truncated"
    # Without a count nothing shows what is missing.
    assert facts(joined(tmp_path, _without_count(long)[: len(long) // 2])).seconds > 1.5


def test_a_recording_that_ends_in_the_next_songs_header_is_whole(
    tmp_path: Path, parts: dict[str, Path]
) -> None:
    second = parts["high.ogg"].read_bytes()
    first_page = second[: second.index(b"OggS", 4)]
    path = joined(tmp_path, parts["low.ogg"], first_page)
    assert facts(path).frames == FIRST.shape[1]
    assert refused(joined(tmp_path, parts["low.ogg"], second[:-100])).code == "truncated"


def test_what_lies_behind_an_ogg_does_not_make_it_cut_off(
    tmp_path: Path, parts: dict[str, Path]
) -> None:
    path = joined(tmp_path, parts["low.ogg"], bytes(70_000))
    assert facts(path).frames == FIRST.shape[1]


@pytest.mark.parametrize("tag", [b"", b"ID3\4\0\0\0\0\x10\0" + bytes(2_048)])
def test_zeros_in_front_of_an_mp3_do_not_change_its_length(
    tmp_path: Path, parts: dict[str, Path], tag: bytes
) -> None:
    mp3 = parts["one.mp3"].read_bytes()
    bare = mp3[mp3.index(b"\xff\xfb") :]
    path = joined(tmp_path, tag, bytes(3_000), bare)
    assert facts(path).frames == FIRST.shape[1]


def test_sound_is_counted_before_it_is_resampled(tmp_path: Path) -> None:
    """Else a first frame of a low rate would hide how much there is to decode."""
    slow, fast = (
        sounds.encode(tmp_path / f"{rate}.aac", sounds.music(2.0, rate), "aac", rate).read_bytes()
        for rate in (8_000, 48_000)
    )
    path = joined(tmp_path, slow, fast)
    with path.open("rb") as file, open_source(file.fileno()) as source:
        frames = sum(frame.samples for frame in source.frames())
        assert frames == pytest.approx(4 * 8_000, rel=0.2)
        assert source.values == pytest.approx(2 * 2 * 56_000, rel=0.2)
        assert source.highest_rate == 48_000


def test_streams_that_are_played_together_are_one_link(tmp_path: Path) -> None:
    song = sounds.music(1.0, 48_000)
    tracks = [("libopus", song), ("libopus", song[:1])]
    path = film(tmp_path / "song.ogg", tracks, container="ogg", rate=48_000)
    assert facts(path).frames == 48_000
    with path.open("rb") as file:
        assert len(ogg_links.links(file.fileno())) == 1


def test_a_file_of_nothing_but_links_is_refused_at_once(
    tmp_path: Path, parts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = b"OggS\0\2" + bytes(21)  # a first page of nothing
    path = joined(tmp_path, parts["low.ogg"], page * 200)
    assert facts(path).frames == FIRST.shape[1]
    monkeypatch.setattr(ogg_links, "MOST_PAGES", 100)
    assert refused(path).code == "absurd_index"
    monkeypatch.setattr(ogg_links, "MOST_LINKS", 2)
    assert refused(joined(tmp_path, *[parts["low.ogg"]] * 3)).code == "absurd_index"


def test_an_mp3_of_more_frames_than_a_song_has_is_left_to_ffmpeg(
    parts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mp3_frames, "MOST_FRAMES", 10)
    with parts["one.mp3"].open("rb") as file:
        assert mp3_frames.parts(file.fileno()) == []
