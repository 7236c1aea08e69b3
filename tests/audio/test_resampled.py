"""Stems at another sample rate: exact in time and level, the same bits wherever reading began."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr

from separations.audio.encoding.formats import FORMATS, read_rate
from separations.audio.encoding.render import WavBytes, write
from separations.audio.info import Tags
from separations.audio.mixing.mix import Mix, Track, peak_of
from separations.audio.mixing.resampled_peak import peak_at_rate
from separations.audio.store.readers import Part, Reader, Samples
from separations.audio.store.resampled import Resampled, at_rate
from separations.audio.store.stem_file import StemWriter
from separations.errors.fault import Fault
from tests.support import sounds

RATES = (4_000, 22_050, 44_056, 47_999, 48_000, 96_000, 192_000)
TAGS = Tags("a", "")


@dataclass(frozen=True)
class InMemory:
    samples: Samples  # (n, 2)
    rate: int = sounds.RATE

    @property
    def frames(self) -> int:
        return len(self.samples)

    def read(self, start: int, stop: int) -> Iterator[Samples]:
        for at in range(start, stop, 10_007):
            yield self.samples[at : min(at + 10_007, stop)]


def joined(reader: Reader, start: int = 0, stop: int | None = None) -> Samples:
    blocks = list(reader.read(start, reader.frames if stop is None else stop))
    return np.concatenate(blocks) if blocks else np.zeros((0, 2), np.float32)


def noise(seconds: float) -> Samples:
    samples = np.random.default_rng(1).standard_normal((int(seconds * sounds.RATE), 2))
    return np.asarray(0.2 * samples, np.float32)


@pytest.mark.parametrize("rate", RATES)
def test_any_part_has_the_same_bits(rate: int) -> None:
    resampled = Resampled(InMemory(noise(5.3)), rate)
    whole = joined(resampled)
    assert len(whole) == resampled.frames == round(5.3 * rate)
    for start, stop in ((0, 1), (1, 2), (rate, 3 * rate + 7), (5 * rate, len(whole)), (7, 7)):
        assert joined(resampled, start, stop).tobytes() == whole[start:stop].tobytes()
    part = Part(resampled, rate, 2 * rate)
    assert joined(part, 5, rate).tobytes() == whole[rate + 5 : 2 * rate].tobytes()


@pytest.mark.parametrize("rate", [4_000, 22_050, 48_000, 96_000])
def test_blocks_join_as_if_resampled_in_one_go(rate: int) -> None:
    song = noise(5.3)
    at_once = soxr.resample(song, sounds.RATE, rate, quality="VHQ")
    found = joined(Resampled(InMemory(song), rate))
    inside = slice(rate // 20, -rate // 20)  # soxr begins and ends a song in its own way
    assert sounds.snr(at_once[inside], found[inside]) > 130


@pytest.mark.parametrize("rate", RATES)
def test_nothing_is_delayed_or_louder(rate: int) -> None:
    def tones(rate: int) -> Samples:
        time = np.arange(round(3 * rate)) / rate
        sound = sum(0.2 * np.sin(2 * np.pi * pitch * time) for pitch in (55, 440, 1_499))
        return np.stack((sound, -sound), axis=1).astype(np.float32)

    found = joined(Resampled(InMemory(tones(sounds.RATE)), rate))
    inside = slice(rate // 2, -rate // 2)
    # At rates that no music has, soxr's own filters are less exact.
    assert sounds.snr(tones(rate)[inside], found[inside]) > (130 if rate > 20_000 else 75)


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("wav", 96_000),
        ("wav24", 192_000),
        ("float32", 47_999),
        ("flac", 96_000),
        ("flac", 22_050),
        ("mp3", 32_000),
        ("mp3", 48_000),
        ("m4a", 22_050),
        ("m4a", 96_000),
        ("opus", 48_000),
    ],
)
def test_files_have_the_rate_and_the_length(tmp_path: Path, name: str, rate: int) -> None:
    format = FORMATS[name]
    assert format.takes(rate)
    song = np.ascontiguousarray(sounds.music(1.7).T)
    reader = at_rate(InMemory(song), rate)
    write(reader, tmp_path / "file", format, 1.0, TAGS, format.default_bit_rate)
    data = (tmp_path / "file").read_bytes()
    with av.open(io.BytesIO(data), "r") as container:
        (stream,) = container.streams.audio
        assert stream.codec_context.sample_rate == rate
        blocks = [frame.to_ndarray() for frame in container.decode(stream)]
        frames = sum(frame.shape[-1] // (1 if frame.shape[0] == 2 else 2) for frame in blocks)
    # FFmpeg leaves the last packet of an M4A whole.
    assert 0 <= frames - round(1.7 * rate) <= (1024 if name == "m4a" else 0)
    if format.encoder.__class__.__name__ in ("Wav", "Flac"):
        samples, _ = soundfile.read(io.BytesIO(data), dtype="float32")
        wanted = joined(reader)
        np.testing.assert_allclose(samples, wanted, atol=2**-15 if name == "wav" else 2**-22)


def test_the_rate_of_the_song_is_offered_where_the_format_has_it() -> None:
    assert read_rate("model", 96_000, FORMATS["mp3"]) == 44_100
    assert read_rate("song", 44_100, FORMATS["opus"]) == 44_100
    assert read_rate("song", 48_000, FORMATS["mp3"]) == 48_000
    for name, song in (("mp3", 96_000), ("m4a", 192_000), ("opus", 32_000), ("flac", 95_904)):
        with pytest.raises(Fault) as fault:
            read_rate("song", song, FORMATS[name])
        assert fault.value.code == "rate_not_in_format"
    with pytest.raises(Fault, match="bad_option"):
        read_rate("48000", 48_000, FORMATS["wav"])


def test_any_byte_range_of_a_resampled_wav_is_that_part_of_the_whole() -> None:
    wav = FORMATS["wav24"].wav
    assert wav is not None
    view = WavBytes(at_rate(InMemory(noise(3.1)), 48_000), wav, 0.9, TAGS)
    whole = b"".join(view.read(0, None))
    assert len(whole) == view.size
    for start, stop in ((0, 10), (30, 5_001), (400_003, 400_004), (777_777, view.size)):
        assert b"".join(view.read(start, stop)) == whole[start:stop]


def test_what_rises_between_the_samples_is_known(tmp_path: Path) -> None:
    # A quarter of the sampling rate, sampled half a step beside its crests.
    song = np.zeros((2, 3 * sounds.RATE), np.float32)
    song[:, 20_000:60_000] = np.sin(np.pi / 2 * np.arange(40_000) + np.pi / 4)
    writer = StemWriter(tmp_path / "stem.flac")
    writer.write(song)
    writer.finish()
    mix = Mix((Track.plain(tmp_path / "stem.flac"),), song.shape[1])
    peak = peak_of(mix, 0, mix.frames)
    assert peak == pytest.approx(2**-0.5, abs=1e-5)
    found = peak_at_rate(mix, peak, 0, mix.frames, 96_000)
    assert found == pytest.approx(np.abs(joined(Resampled(mix, 96_000))).max())
    assert found > 0.99
    assert peak_at_rate(mix, peak, 0, mix.frames, sounds.RATE) == peak
    assert peak_at_rate(mix, 0.3, 0, mix.frames, 96_000) == 0.3  # too low to matter
