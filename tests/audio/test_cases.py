"""The files that people reported, which lie beside the checkout: right to the sample."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support import sounds
from tests.support.decoded import facts, heard, refused

CASES = sounds.ROOT.parent / "shared" / "cases"
SHORT, LONG = 110_250, 255_780


def case(name: str) -> Path:
    path = CASES / name
    if not path.exists():
        pytest.skip(f"WITHOUT ../shared/cases: it lacks {name}")
    return path


def mixture(frames: int) -> sounds.Samples:
    """What the cases were made of."""
    song = soundfile.read(sounds.shared("reference/mixture.flac"), dtype="float32")[0].T
    return np.asarray(song[:, 8 * sounds.RATE :][:, :frames], np.float32)


@pytest.mark.parametrize(
    ("name", "container", "codec"),
    [
        ("wav_size_7FFFF024.wav", "wav", "pcm_s16le"),
        ("wav_riff_size_8_too_large.wav", "wav", "pcm_s16le"),
        ("wav_24_in_32.wav", "wav", "pcm_s32le"),
        ("song.aiff", "aiff", "pcm_s16be"),
    ],
)
def test_an_uncompressed_case_is_read_to_the_sample(name: str, container: str, codec: str) -> None:
    info = facts(case(name))
    assert (info.container, info.codec, info.frames) == (container, codec, SHORT)
    assert info.samples_sha256 == facts(case("wav_info_cp1252.wav")).samples_sha256
    np.testing.assert_allclose(heard(case(name)), mixture(SHORT), atol=2**-15)


@pytest.mark.parametrize(
    ("name", "frames", "decibels"),
    [
        ("chained_q5_q2.ogg", 2 * SHORT, 5),
        ("chained_44100_48000.ogg", 2 * SHORT, 5),
        ("mp3_apev2_cover_at_end.mp3", SHORT, 10),
        ("m4a_edit_list_255780_frames.m4a", LONG, 10),
        ("m4a_second_track_is_default.m4a", LONG, 10),
        ("video.mp4", LONG, 10),
    ],
)
def test_a_compressed_case_has_its_length_and_its_sound(
    name: str, frames: int, decibels: float
) -> None:
    assert facts(case(name)).frames == frames
    song = mixture(SHORT if "chained" in name else frames)
    for part in np.split(heard(case(name)), frames // song.shape[1], axis=1):
        assert sounds.snr(song, part) > decibels


def test_a_case_of_a_codec_that_is_not_read_is_told_its_name() -> None:
    fault = refused(case("gsm.wav"))
    assert (fault.code, fault.params) == ("codec_not_read", {"codec": "gsm_ms"})
