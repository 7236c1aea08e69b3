"""Stored stems come out in every format with the right samples, length and level."""

import errno
import io
import os
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from separations.audio.decoding.probe import probe
from separations.audio.encoding.formats import FORMATS, Wav
from separations.audio.encoding.render import WavBytes, common_gain, most_bytes, size_of, write
from separations.audio.info import MOST_COVER, Tags
from separations.audio.song_reader import decode
from separations.audio.store.readers import Part, StoredStem
from separations.audio.store.stem_file import StemWriter, read_stem
from tests.support import sounds
from tests.support.tagged import JPEG

TAGS = Tags("노래 (drums)", "누구")
FULL = Tags("노래 (drums)", "누구", "앨범", 3, 12, 2001, "Rock", 127.98, "F#m", JPEG)
STEPS = {"wav": 2**-15, "wav24": 2**-21, "float32": 2**-21}  # the store's own steps are 2^-21


def store(path: Path, samples: sounds.Samples) -> StemWriter:
    writer = StemWriter(path)
    for block in sounds.blocks(samples):
        writer.write(block)
    writer.finish()
    return writer


def wav_of(name: str) -> Wav:
    wav = FORMATS[name].wav
    assert wav is not None
    return wav


def stored(path: Path) -> sounds.Samples:
    return np.concatenate(list(read_stem(path))).T


@pytest.fixture
def loud(tmp_path: Path) -> tuple[Path, sounds.Samples]:
    """A stored stem that peaks at 1.5, with its samples; two cells long."""
    samples = sounds.music(2.3) * 3
    assert store(tmp_path / "stem.flac", samples).peak == pytest.approx(1.5)
    return tmp_path / "stem.flac", samples


def test_the_store_keeps_what_exceeds_full_scale(loud: tuple[Path, sounds.Samples]) -> None:
    path, samples = loud
    np.testing.assert_allclose(stored(path), samples, atol=2**-21)


@pytest.mark.parametrize("level", [1e-6, 1e-4, 0.01, 0.12, 1.0, 7.9, 1e4])
def test_the_store_is_exact_at_any_level(tmp_path: Path, level: float) -> None:
    samples = np.concatenate((sounds.music(2.0), sounds.music(2.0) * np.float32(level)), axis=1)
    path = tmp_path / "stem.flac"
    store(path, samples)
    quiet = slice(2 * 65_536, None)  # a cell of this level alone
    assert sounds.snr(samples[:, quiet], stored(path)[:, quiet]) > (40 if level < 1e-5 else 80)


def test_any_part_of_a_stem_is_read_alike(tmp_path: Path) -> None:
    samples = sounds.music(4.0) * np.linspace(1e-3, 3, 4 * sounds.RATE, dtype=np.float32)
    path = tmp_path / "stem.flac"
    store(path, samples)
    whole = stored(path)
    for start, stop in ((0, 1), (65_535, 65_537), (65_536, 131_072), (100_000, 170_000)):
        part = np.concatenate(list(read_stem(path, start, stop))).T
        np.testing.assert_array_equal(part, whole[:, start:stop])


@pytest.mark.parametrize("name", STEPS)
def test_wav_is_exact_to_its_word_length(loud: tuple[Path, sounds.Samples], name: str) -> None:
    path, samples = loud
    common = 1.0 if FORMATS[name].keeps_overs else common_gain([0.3, 1.5])
    view = WavBytes(StoredStem(path, samples.shape[1]), wav_of(name), common, TAGS)
    data = b"".join(view.read(0, view.size))
    assert len(data) == view.size
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        assert (file.samplerate, file.channels) == (44_100, 2)
        assert file.subtype == {"wav": "PCM_16", "wav24": "PCM_24", "float32": "FLOAT"}[name]
        back = file.read(dtype="float32", always_2d=True).T
        assert (file.title, file.artist) == (TAGS.title, TAGS.artist)
    np.testing.assert_allclose(back, samples * common, atol=STEPS[name] * 1.01)


@pytest.mark.parametrize("name", STEPS)
def test_any_byte_range_of_a_wav_is_that_part_of_the_whole(
    loud: tuple[Path, sounds.Samples], name: str
) -> None:
    path, samples = loud
    view = WavBytes(StoredStem(path, samples.shape[1]), wav_of(name), 1.0, FULL)
    whole = b"".join(view.read(0, view.size))
    random = np.random.default_rng(5)
    ranges = [(0, 1), (0, 44), (43, 47), (58, 61), (view.size - 1, view.size), (7, view.size)]
    tail = whole.rindex(b"id3 ")
    ranges += [(tail - 5, tail + 5), (tail, view.size), (tail + 1, tail + 2), (tail - 1, tail)]
    for _ in range(20):
        one, other = (int(at) for at in random.integers(0, view.size, 2))
        ranges.append((min(one, other), max(one, other)))
    for start, stop in ranges:
        assert b"".join(view.read(start, stop)) == whole[start:stop]


@pytest.mark.parametrize(("title", "artist"), [("a", ""), ("ab", "c"), ("", "")])
def test_a_wav_is_whole_whatever_its_tags(
    loud: tuple[Path, sounds.Samples], title: str, artist: str
) -> None:
    path, _samples = loud
    view = WavBytes(StoredStem(path, 1000), wav_of("wav"), 0.5, Tags(title, artist))
    data = b"".join(view.read(0, view.size))
    assert int.from_bytes(data[4:8], "little") == len(data) - 8
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        assert (file.frames, file.title, file.artist) == (1000, title, artist)


@pytest.mark.parametrize("name", [*STEPS, "flac", "mp3", "m4a", "opus"])
def test_all_tags_and_the_cover_are_read_back(tmp_path: Path, name: str) -> None:
    """By what reads uploads, which is mutagen; and by FFmpeg, as players do."""
    store(tmp_path / "stem.flac", sounds.music(0.5))
    reader, format = StoredStem(tmp_path / "stem.flac", 22_050), FORMATS[name]
    target = tmp_path / f"out.{format.extension}"
    write(reader, target, format, 0.5, FULL, format.default_bit_rate)
    whole_beats = replace(FULL, bpm=128.0)
    with target.open("rb") as file:
        info = probe(file.fileno(), 60)
        assert info.tags == (whole_beats if name == "m4a" else FULL)
        if name == "flac":  # known from the first bytes on, before it is encoded
            stated = int.from_bytes(os.pread(file.fileno(), 5, 21), "big") & (1 << 36) - 1
            assert stated == 22_050
        assert info.frames in (22_050, 24_000, -(-22_050 // 1024) * 1024)
    with av.open(str(target)) as container:
        tags = {**container.metadata, **container.streams.audio[0].metadata}
        found = {key.lower(): text for key, text in tags.items()}
        wanted = {"title": FULL.title, "artist": FULL.artist, "album": FULL.album, "genre": "Rock"}
        assert wanted.items() <= found.items()
        assert found["track"].split("/")[0] == "3"
        assert (found.get("date") or found["tyer"]) == "2001"
        (picture,) = container.streams.video
        assert [bytes(packet) for packet in container.demux(picture) if packet.size][:1] == [JPEG]


@pytest.mark.parametrize("name", ["flac", "mp3", "opus", "m4a", "wav"])
def test_a_large_cover_fits_the_room_that_is_asked_for(tmp_path: Path, name: str) -> None:
    store(tmp_path / "stem.flac", sounds.music(0.2))
    reader, format = StoredStem(tmp_path / "stem.flac", 8820), FORMATS[name]
    random = np.random.default_rng(1).bytes(MOST_COVER - len(JPEG))
    tags = replace(FULL, cover=JPEG + random)
    target = tmp_path / "out"
    write(reader, target, format, 1.0, tags, format.default_bit_rate)
    if format.wav is None:
        size = target.stat().st_size
        assert size <= most_bytes(reader, format, tags, format.default_bit_rate)
        assert size_of(reader, format, tags, format.default_bit_rate) in (None, size)
    with target.open("rb") as file:
        assert probe(file.fileno(), 60).tags.cover == tags.cover


def test_a_disk_that_fills_while_tags_are_written_is_an_error_of_the_disk(
    tmp_path: Path, small_disk: Path
) -> None:
    """mutagen hides what the system said, and the site tells people to come later by that."""
    store(tmp_path / "stem.flac", sounds.music(0.2))
    reader, format = StoredStem(tmp_path / "stem.flac", 8820), FORMATS["m4a"]
    tags = replace(FULL, cover=JPEG.ljust(MOST_COVER))
    (small_disk / "rest").write_bytes(bytes(1_500_000))
    with pytest.raises(OSError, match="No space") as caught:
        write(reader, small_disk / "out", format, 1.0, tags, 128)
    assert caught.value.errno == errno.ENOSPC


def test_a_part_is_that_part(loud: tuple[Path, sounds.Samples]) -> None:
    path, samples = loud
    part = Part(StoredStem(path, samples.shape[1]), 50_000, 90_000)
    for start, stop in ((0, 40_000), (15_000, 16_000), (39_999, 80_000)):
        back = np.concatenate(list(part.read(start, stop))).T
        wanted = samples[:, 50_000 + start : min(90_000, 50_000 + stop)]
        np.testing.assert_allclose(back, wanted, atol=2**-21)


COMPRESSED = [
    ("flac", 0, 100),
    ("mp3", 320, 15),
    ("mp3", 128, 8),
    ("m4a", 256, 15),
    ("m4a", 128, 8),
    ("opus", 192, 12),
    ("opus", 96, 7),
]


@pytest.mark.parametrize(("name", "bit_rate", "at_least"), COMPRESSED)
def test_compressed_formats_keep_length_and_tags(
    loud: tuple[Path, sounds.Samples], name: str, bit_rate: int, at_least: float
) -> None:
    path, samples = loud
    frames = samples.shape[1]
    common = common_gain([1.5])
    target = path.with_name(f"out.{name}")
    write(StoredStem(path, frames), target, FORMATS[name], common, Tags(TAGS.title, ""), bit_rate)
    back = np.concatenate(list(decode(target)), axis=1)
    with av.open(str(target)) as container:
        (stream,) = container.streams.audio
        tags = {**container.metadata, **stream.metadata}
        assert {value for key, value in tags.items() if key.lower() == "title"} == {TAGS.title}
        assert not [key for key in tags if key.lower() == "artist"]
        if bit_rate:
            assert container.bit_rate == pytest.approx(bit_rate * 1000, rel=0.1)
        if name == "m4a":
            # The file states it to the sample; FFmpeg's decoder gives the last packet whole.
            assert (stream.duration, stream.time_base) == (frames, Fraction(1, 44_100))
            assert 0 <= back.shape[1] - frames < 1024
            back = back[:, :frames]
    assert abs(back.shape[1] - frames) <= (1 if name == "opus" else 0)  # it counts at 48 kHz
    both = min(back.shape[1], frames)
    assert sounds.snr((samples * common)[:, :both], back[:, :both]) > at_least


@pytest.mark.parametrize(("name", "bit_rate"), [(name, rate) for name, rate, _ in COMPRESSED[1::2]])
def test_a_file_that_is_made_again_is_the_same_file(
    loud: tuple[Path, sounds.Samples], name: str, bit_rate: int
) -> None:
    """So a download that is resumed after the first one was deleted goes on with the same bytes."""
    path, samples = loud
    files = []
    for number in range(2):
        target = path.with_name(f"{number}.{name}")
        write(StoredStem(path, samples.shape[1]), target, FORMATS[name], 0.5, FULL, bit_rate)
        files.append(target.read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize("name", ["mp3", "m4a", "opus"])
def test_bit_rates_are_told_apart(loud: tuple[Path, sounds.Samples], name: str) -> None:
    path, samples = loud
    sizes = []
    for rate in FORMATS[name].bit_rates:
        write(
            StoredStem(path, samples.shape[1]), path.with_name("o"), FORMATS[name], 0.5, TAGS, rate
        )
        sizes.append(path.with_name("o").stat().st_size)
    assert sizes == sorted(sizes)
    assert sizes[-1] > 1.6 * sizes[0]


@pytest.mark.parametrize("name", ["flac", "mp3", "m4a", "opus"])
def test_a_disk_that_takes_nothing_is_an_error_of_its_own(
    loud: tuple[Path, sounds.Samples], name: str
) -> None:
    path, samples = loud
    stem, format = StoredStem(path, samples.shape[1]), FORMATS[name]
    rate = max(format.bit_rates, default=0)
    with pytest.raises(OSError) as caught:  # noqa: PT011 - libsndfile does not say which
        write(stem, Path("/dev/full"), format, 0.5, TAGS, rate)
    if name in ("m4a", "opus"):
        assert caught.value.errno == errno.ENOSPC


def test_one_gain_for_the_whole_track() -> None:
    assert common_gain([0.2, 0.9]) == 1.0
    assert common_gain([0.2, 2.0]) == 0.5


class Long:
    """A reader of five hours of a slow ramp."""

    frames = 5 * 3600 * 44_100
    rate = sounds.RATE

    def read(self, start: int, stop: int) -> Iterator[NDArray[np.float32]]:
        yield np.repeat(np.arange(start, stop, dtype=np.float64)[:, None] / 2**30, 2, 1).astype(
            "f4"
        )


@pytest.mark.parametrize("name", ["float32", "wav24"])
def test_a_wav_beyond_four_gigabytes_is_rf64(tmp_path: Path, name: str) -> None:
    wav = WavBytes(Long(), wav_of(name), 1.0, TAGS)
    assert wav.size > 1 << 32
    head = b"".join(wav.read(0, 400))
    assert head[:4] == b"RF64"
    file = tmp_path / "long.wav"
    with file.open("wb") as target:  # with a hole where the middle would be
        target.write(head)
        target.seek(wav.size - 8000)
        target.writelines(wav.read(wav.size - 8000, None))
    info = soundfile.info(file)
    assert (info.frames, info.format, info.samplerate) == (Long.frames, "RF64", 44_100)
    (last,) = soundfile.read(file, start=Long.frames - 1, dtype="float32")[0]
    assert last[0] == pytest.approx((Long.frames - 1) / 2**30, abs=2**-23)
    # FFmpeg finds the same.
    with av.open(str(file)) as container:
        stream = container.streams.audio[0]
        assert stream.duration == Long.frames
        assert container.metadata["title"] == TAGS.title
