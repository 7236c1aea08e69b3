"""Any accepted file becomes 44.1 kHz stereo."""

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from torchaudio.transforms import Resample

from separations.audio import song_reader as decoding
from separations.audio.sandbox.decoder_process import probe_isolated
from separations.audio.song_reader import decode, resample
from tests.support import sounds
from tests.support.sounds import RATE, sine, wav


def read(path: Path) -> sounds.Samples:
    return np.concatenate(list(decode(path)), axis=1)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_wav_of_any_depth_is_read_sample_by_sample(tmp_path: Path, subtype: str) -> None:
    song = sounds.music(1.0)
    heard = read(wav(tmp_path / "song.wav", song, subtype=subtype))
    assert heard.shape == song.shape
    assert sounds.snr(song, heard) > (25 if subtype == "PCM_U8" else 70)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("song.mp3", "libmp3lame", 44_100),
        ("song.flac", "flac", 48_000),
        ("song.ogg", "vorbis", 44_100),
        ("song.ogg", "libopus", 48_000),
        ("song.opus", "libopus", 48_000),
        ("song.m4a", "aac", 44_100),
        ("song.m4a", "alac", 44_100),
        ("song.aac", "aac", 48_000),
    ],
)
def test_every_accepted_codec_sounds_like_the_original(
    tmp_path: Path, name: str, codec: str, rate: int
) -> None:
    path = tmp_path / name
    if codec == "vorbis":
        soundfile.write(path, sine(2.0, rate).T, rate)
    else:
        sounds.encode(path, sine(2.0, rate), codec, rate)
    heard = read(path)
    assert abs(heard.shape[1] - 2 * RATE) < 0.1 * RATE
    middle = heard[:, RATE // 2 : RATE // 2 + RATE]
    spectrum = np.abs(np.fft.rfft(middle[0] * np.hanning(RATE)))
    assert abs(int(spectrum.argmax()) - 1000) <= 1
    assert np.abs(middle).max() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 32_000, 48_000, 96_000, 192_000])
def test_resampling_in_blocks_equals_resampling_in_one_go(rate: int) -> None:
    song = sounds.music(1.37, rate)
    pieces = np.concatenate(list(resample(sounds.blocks(song, 7_001), rate)), axis=1)
    whole = Resample(
        rate,
        RATE,
        resampling_method="sinc_interp_kaiser",
        lowpass_filter_width=decoding.LOWPASS_WIDTH,
        rolloff=decoding.ROLLOFF,
        beta=decoding.BETA,
    )(torch.from_numpy(song)).numpy()
    assert pieces.shape == whole.shape
    np.testing.assert_allclose(pieces, whole, atol=1e-6)


@pytest.mark.parametrize("rate", [44_056, 47_952, 384_000, 4_000])
def test_odd_sample_rates_keep_length_and_pitch(tmp_path: Path, rate: int) -> None:
    heard = read(wav(tmp_path / "song.wav", sine(2.0, rate), rate))
    assert abs(heard.shape[1] - 2 * RATE) < 100
    spectrum = np.abs(np.fft.rfft(heard[0, 20_000 : 20_000 + RATE]))
    assert abs(int(spectrum.argmax()) - 1000) <= 1


def test_mono_keeps_its_level_in_both_channels(tmp_path: Path) -> None:
    song = sounds.music(1.0, channels=1)
    heard = read(wav(tmp_path / "song.wav", song, subtype="FLOAT"))
    np.testing.assert_array_equal(heard, np.repeat(song, 2, axis=0))


@pytest.mark.parametrize(("layout", "channels"), [("5.1", 6), ("7.1", 8), ("quad", 4)])
def test_surround_is_folded_down_with_every_channel_but_the_subwoofer(
    tmp_path: Path, layout: str, channels: int
) -> None:
    for position, channel in enumerate(av.AudioLayout(layout).channels):
        only_this = np.zeros((channels, RATE), np.float32)
        only_this[position] = sine(1.0, RATE, 1)[0]
        path = tmp_path / f"{position}.flac"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("flac", rate=RATE, layout=layout)
            words = (only_this * 32767).astype(np.int16).T.reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(words), "s16", layout)
            frame.sample_rate = RATE
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        assert probe_isolated(path, 60).channels == channels
        level = np.abs(read(path)[:, 1000:-1000]).max(axis=1)
        if channel.name == "LFE":
            assert level.max() < 0.01
        elif channel.name in ("FL", "FR"):
            assert level.max() == pytest.approx(0.5, abs=0.01)
            assert level.min() < 0.01
        else:
            assert level.max() == pytest.approx(0.5 * 0.7071, abs=0.01)


def test_tags_and_facts_are_read(tmp_path: Path) -> None:
    path = sounds.encode(
        tmp_path / "a.mp3", sounds.music(2.0), "libmp3lame", title=" 봄날\n", artist="Ä & Ö"
    )
    info = probe_isolated(path, 60)
    assert (info.tags.title, info.tags.artist) == ("봄날", "Ä & Ö")
    assert (info.container, info.sample_rate, info.channels) == ("mp3", RATE, 2)
    assert info.seconds == pytest.approx(2.0, abs=0.001)


def test_a_retagged_copy_has_the_same_samples(tmp_path: Path) -> None:
    song = sounds.music(1.0)
    plain = sounds.encode(tmp_path / "a.flac", song, "flac")
    tagged = sounds.encode(tmp_path / "b.flac", song, "flac", title="another name")
    other = sounds.encode(tmp_path / "c.flac", sounds.music(1.0, seed=1), "flac")
    digests = [probe_isolated(path, 60).samples_sha256 for path in (plain, tagged, other)]
    assert digests[0] == digests[1] != digests[2]
