"""What cannot be separated is refused with a name for what is wrong."""

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile

from separations.audio.decoding.source import open_source
from separations.audio.sandbox.decoder_process import open_song, probe_isolated
from separations.errors.fault import Fault
from tests.fuzz import inputs
from tests.fuzz.tally import Watch
from tests.support import containers, sounds
from tests.support.sounds import wav


def refusal(path: Path, max_seconds: float = 60) -> str:
    with pytest.raises(Fault) as caught:
        probe_isolated(path, max_seconds)
    return caught.value.code


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty"),
        (b"These are words, not music. " * 200, "not_audio"),
        (np.random.default_rng(1).bytes(200_000), "not_audio"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "not_audio"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n", "not_audio"),
    ],
    ids=["empty", "words", "noise", "concat script", "playlist"],
)
def test_what_is_no_audio_is_refused(tmp_path: Path, content: bytes, code: str) -> None:
    path = tmp_path / "song.mp3"
    path.write_bytes(content)
    assert refusal(path) == code


# Others, without a sandbox: `test_containers`.
CUT: dict[str, Callable[[Path], Path]] = {
    "wav": lambda folder: wav(folder / "song.wav", sounds.music(8.0)),
    "flac": lambda folder: sounds.encode(folder / "song.flac", sounds.music(8.0), "flac"),
    "ogg": lambda folder: sounds.encode(
        folder / "song.opus", sounds.music(8.0, 48_000), "libopus", 48_000
    ),
    "mp3": lambda folder: sounds.encode(folder / "song.mp3", sounds.music(8.0), "libmp3lame"),
    "m4a": lambda folder: sounds.encode(folder / "song.m4a", sounds.music(4.0), "aac"),
}


@pytest.mark.parametrize("kind", CUT)
def test_a_cut_off_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = CUT[kind](tmp_path)
    probe_isolated(path, 60)  # whole, it is fine
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6) - 3])
    assert refusal(path) == "truncated"


def test_the_decoded_length_counts_not_the_stated_one(tmp_path: Path) -> None:
    path = sounds.encode(tmp_path / "song.mp3", sounds.music(5.0), "libmp3lame")
    data = bytearray(path.read_bytes())
    frames = data.index(b"Info") + 8
    data[frames : frames + 4] = (10).to_bytes(4, "big")  # claims a quarter of a second
    path.write_bytes(data)
    assert refusal(path, max_seconds=4.0) == "too_long"
    assert probe_isolated(path, max_seconds=5.2).seconds == pytest.approx(5.0, abs=0.1)


def test_a_song_of_many_channels_at_a_high_rate_may_last_less_long(tmp_path: Path) -> None:
    """A megabyte of silence can hold as much sound as hours of stereo."""
    path = tmp_path / "s.flac"
    soundfile.write(path, np.zeros((192_000, 8)), 192_000)
    with pytest.raises(Fault) as caught:
        probe_isolated(path, 3.9)
    assert caught.value.code == "too_much_sound"
    assert caught.value.params["max_minutes"] == "0.016"
    assert probe_isolated(path, 4.1).channels == 8


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    song = sounds.music(1.0)
    song[1, 1234] = value
    assert refusal(wav(tmp_path / "song.wav", song, subtype="FLOAT")) == "not_finite"


@pytest.mark.parametrize("samples", [1, 100, 4409])
def test_hardly_a_sound_is_refused(tmp_path: Path, samples: int) -> None:
    assert refusal(wav(tmp_path / "song.wav", sounds.music(1.0)[:, :samples])) == "too_short"


@pytest.mark.parametrize("rate", [1, 3_999, 384_001, 2_000_000])
def test_absurd_sample_rates_are_refused(tmp_path: Path, rate: int) -> None:
    assert refusal(wav(tmp_path / "song.wav", sounds.music(1.0), rate)) == "absurd_rate"


def test_more_channels_than_surround_are_refused(tmp_path: Path) -> None:
    assert refusal(wav(tmp_path / "song.wav", sounds.music(1.0, channels=9))) == "too_many_channels"


def test_a_picture_without_sound_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    import av

    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert refusal(path) == "no_audio"


def test_a_broken_stretch_in_the_middle_is_bridged(tmp_path: Path) -> None:
    path = sounds.encode(tmp_path / "song.mp3", sounds.music(20.0), "libmp3lame")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 300] = bytes(300)
    path.write_bytes(data)
    assert probe_isolated(path, 60).seconds == pytest.approx(20.0, abs=0.5)


def test_a_decoder_that_hangs_is_ended_and_said_to_be_too_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from separations.audio.sandbox import decoder_process

    monkeypatch.setattr(decoder_process, "WALL_FACTOR", 0.0001)
    assert refusal(wav(tmp_path / "song.wav", sounds.music(1.0))) == "too_slow"


def test_a_codec_that_is_not_on_the_list_is_told_its_name(tmp_path: Path) -> None:
    path = containers.film(tmp_path / "s", [("tta", sounds.music(1.0))], container="matroska")
    with pytest.raises(Fault) as caught:
        probe_isolated(path, 60)
    assert (caught.value.code, caught.value.params) == ("codec_not_read", {"codec": "tta"})


def test_ffmpeg_itself_follows_no_reference(tmp_path: Path) -> None:
    """Without the sandbox around it: its own lists are a wall of their own."""
    folder = tmp_path / "songs"
    folder.mkdir()
    songs, watch = inputs.valid(folder), Watch(tmp_path)
    path = tmp_path / "hostile"
    for number in range(150):
        make = (inputs.MADE["playlist"], inputs.MADE["reference"], inputs.MADE["tag with a link"])
        _name, data = make[number % 3](random.Random(number), songs, watch.bait)
        path.write_bytes(data)
        with path.open("rb") as file, suppress(Fault), open_source(file.fileno()) as source:
            list(source.frames())
        assert watch.seen() == [], number


def test_pictures_are_not_decoded(tmp_path: Path) -> None:
    (tmp_path / "songs").mkdir()
    path = tmp_path / "film"
    path.write_bytes(inputs.valid(tmp_path / "songs")["film.m4a"])
    with path.open("rb") as file, open_source(file.fileno()) as source:
        (picture,) = source.container.streams.video
        # FFmpeg learns the format of the pixels by decoding one picture.
        assert picture.codec_context.format is None
        assert sum(frame.samples for frame in source.frames()) > 0


# A header that says other than the frames


def flac_parts(path: Path, samples: sounds.Samples) -> tuple[bytes, list[bytes]]:
    """The header and the frames of a FLAC file of these samples."""
    import av

    soundfile.write(path, samples.T, sounds.RATE, "PCM_16")
    with av.open(str(path)) as container:
        frames = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    data = path.read_bytes()
    return data[: data.index(frames[0])], frames


def crafted_flac(
    path: Path, header: bytes, front: list[bytes], frames: list[bytes], samples: int
) -> Path:
    """A FLAC file whose header, and `front` that no decoder can read, make FFmpeg's parser expect
    other channels than all `frames` have. (STREAMINFO: RFC 9639, 8.2.)"""
    channels = front[0][3] >> 4 & 7
    info = int.from_bytes(header[18:26], "big")
    info = info & ~(7 << 41) & ~((1 << 36) - 1) | channels << 41 | samples
    unreadable = [frame[:6] + b"\x7e" + frame[7:] for frame in front]  # LPC of too high an order
    header = header[:18] + info.to_bytes(8, "big") + header[26:]
    path.write_bytes(b"".join((header, *unreadable, *frames)))
    return path


def test_a_header_of_other_channels_does_not_give_a_file_the_hash_of_another_song(
    tmp_path: Path,
) -> None:
    """A mono song has the samples of a stereo one of half its length, and the other way round."""
    song = sounds.music(12.0, channels=1)
    row = song.reshape(-1, 2).T
    header, mono = flac_parts(tmp_path / "mono.flac", song)
    _header, stereo = flac_parts(tmp_path / "stereo.flac", row)
    victims = [probe_isolated(tmp_path / f"{name}.flac", 60) for name in ("mono", "stereo")]
    as_mono = crafted_flac(tmp_path / "a", header, mono[:4], stereo, row.shape[1])
    as_stereo = crafted_flac(tmp_path / "b", header, stereo[:4], mono, song.shape[1])
    lies = [probe_isolated(path, 60) for path in (as_mono, as_stereo)]
    assert [(lie.channels, lie.frames) for lie in lies] == [(2, row.shape[1]), (1, song.shape[1])]
    # What is decoded is what is told of it: the frames' own song.
    assert lies[0].samples_sha256 == victims[1].samples_sha256
    assert lies[1].samples_sha256 == victims[0].samples_sha256
    with open_song(as_mono) as decoded:
        heard = np.concatenate(list(decoded.blocks()), axis=1)
    np.testing.assert_allclose(heard, row, atol=2**-15)
