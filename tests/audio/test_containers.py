"""Files of many kinds, with the headers that programs really write."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from mutagen import mp4

from separations.audio.decoding.chunks import read_chunks
from separations.audio.decoding.mp4_index import check_index
from separations.errors.fault import Fault
from tests.support import containers, sounds
from tests.support.containers import film
from tests.support.decoded import facts, heard, refused

SONG = sounds.music(1.0)
FRAMES = SONG.shape[1]
BYTES = 4 * FRAMES
SINE = sounds.sine(1.0, sounds.RATE)


def put(folder: Path, data: bytes) -> Path:
    path = folder / "song"
    path.write_bytes(data)
    return path


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the song's samples in 16 bits."""
    path = put(tmp_path_factory.mktemp("plain"), containers.wav(SONG))
    np.testing.assert_allclose(heard(path), SONG, atol=2**-15)
    return facts(path).samples_sha256


# Sizes in headers


def written(format: str, mark: bytes, at: int, stated: int, size: int) -> Callable[[Path], bytes]:
    """A file of soundfile's, with another number `at` so many bytes behind `mark`."""

    def make(folder: Path) -> bytes:
        path = folder / "written"
        soundfile.write(path, containers.integers(SONG), sounds.RATE, format=format)
        data = bytearray(path.read_bytes())
        place = data.index(mark) + at
        data[place : place + size] = stated.to_bytes(size, "little" if format == "W64" else "big")
        return bytes(data)

    return make


def wide(valid: int, bits: int) -> Callable[[Path], bytes]:
    return lambda _folder: containers.wav_of_wide_words(SONG, valid, bits)


def rf64(size: int) -> Callable[[Path], bytes]:
    return lambda _folder: containers.rf64(SONG, data_size=size)


def wav(*given: int | None, **named: bytes) -> Callable[[Path], bytes]:
    return lambda _folder: containers.wav(SONG, *given, **named)  # type: ignore[arg-type]


UNKNOWN = (0, 0x7F000000, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFDB, 0xFFFFFFFF)
WHOLE: dict[str, Callable[[Path], bytes]] = {
    **{f"WAV data {size:X}": wav(size, size) for size in UNKNOWN},
    **{f"RIFF {size}": wav(None, size) for size in (0, 7, BYTES, BYTES + 44, 2 * BYTES)},
    "WAV data counts its header": wav(BYTES + 44),
    "RIFX": wav(mark=b"RIFX"),
    "RIFX with a chunk behind": wav(
        mark=b"RIFX", after=struct.pack(">4sI", b"LIST", 20_000) + b"x" * 20_000
    ),
    **{
        f"{mark.decode()} data {size:X} with a chunk behind": wav(
            size,
            mark=mark,
            after=struct.pack((">" if mark == b"RIFX" else "<") + "4sI", b"LIST", 1_000)
            + b"x" * 1_000,
        )
        for size in (0, BYTES + 2_000, 0xFFFFFFFF)
        for mark in (b"RIFF", b"RIFX")
    },
    "RIFX data 7FFFF000": wav(0x7FFFF000, mark=b"RIFX"),
    "RF64": lambda _folder: containers.rf64(SONG),
    "BW64": lambda _folder: containers.rf64(SONG, b"BW64"),
    **{f"RF64 data {size:X}": rf64(size) for size in (0, 2**63 - 1, 2**64 - 1)},
    **{
        f"W64 data {size:X}": written("W64", b"data\xf3", 16, size, 8)
        for size in (0, 24, BYTES + 24, 2**63 - 1, 2**64 - 1)
    },
    **{
        f"AIFF data {size:X}": written("AIFF", b"SSND", 4, size, 4)
        for size in (0, 8, BYTES + 8, 0x7F000008, 0x7FFFF008, 0xFFFFFFFF)
    },
    **{
        f"CAF data {size:X}": written("CAF", b"data", 4, size, 8) for size in (BYTES + 4, 2**64 - 1)
    },
    **{
        f"{valid} bits in {bits}": wide(valid, bits)
        for valid, bits in ((24, 32), (20, 24), (12, 16), (32, 32))
    },
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_whole_file_is_read_to_the_sample_whatever_its_header_says(
    tmp_path: Path, kind: str, identity: str
) -> None:
    assert facts(put(tmp_path, WHOLE[kind](tmp_path))).samples_sha256 == identity


@pytest.mark.parametrize("kind", ["RIFF 7", "RIFX", "RF64", f"W64 data {BYTES + 24:X}"])
def test_a_data_chunk_that_promises_more_than_there_is_is_cut_off(
    tmp_path: Path, kind: str
) -> None:
    data = WHOLE[kind](tmp_path)
    assert refused(put(tmp_path, data[:-20_000])).code == "truncated"
    # A block of a recorder is missing, which nobody hears.
    assert facts(put(tmp_path, data[:-2_000])).frames == FRAMES - 500


def test_a_wav_of_no_samples_and_other_chunks_is_no_song(tmp_path: Path) -> None:
    tag = b"id3 " + struct.pack("<I", 100_000) + b"x" * 100_000
    path = put(tmp_path, containers.wav(SONG[:, :0], 0, after=tag))
    assert refused(path).code == "too_short"


@pytest.mark.parametrize("size", [0, 2**64 - 1])
@pytest.mark.parametrize("mark", [b"riff", b"RF64"])
def test_sizes_of_64_bits_may_be_unknown_beyond_2_gib(
    tmp_path: Path, mark: bytes, size: int
) -> None:
    """FFmpeg gets the size that is there; a file with holes takes no space."""
    path = tmp_path / "song"
    kind = "W64 data " if mark == b"riff" else "RF64 data "
    path.write_bytes(WHOLE[f"{kind}{size:X}"](tmp_path))
    long = 5_000_000_000
    os.truncate(path, long)
    with path.open("rb") as file:
        found = read_chunks(file.fileno())
        assert found is not None
    (stated,) = (piece for piece in found.view.pieces if isinstance(piece, bytes))
    assert long - 500 < int.from_bytes(stated, "little") < long


@pytest.mark.parametrize("kind", [f"AIFF data {BYTES + 8:X}", f"CAF data {BYTES + 4:X}"])
def test_so_it_is_in_apples_files(tmp_path: Path, kind: str) -> None:
    data = WHOLE[kind](tmp_path)
    assert refused(put(tmp_path, data[: BYTES // 2])).code == "truncated"


# More kinds, by content


KINDS = [  # codec, container, whether it is read to the sample, and what it is called then
    ("pcm_s16be", "aiff", True, "aiff"),
    ("pcm_s16le", "aiff", True, "aiff"),
    ("pcm_s16le", "caf", True, "caf"),
    ("alac", "caf", True, "caf"),
    ("alac", "ipod", True, "mov"),
    ("alac", "matroska", True, "matroska"),
    ("flac", "matroska", True, "matroska"),
    ("pcm_s16le", "mov", True, "mov"),
    ("pcm_s16le", "w64", True, "w64"),
    ("wavpack", "wv", False, "wv"),  # of float samples, which 16 bits are not
    ("wmav1", "asf", False, "asf"),
    ("wmav2", "asf", False, "asf"),
    ("aac", "matroska", False, "matroska"),
    ("libmp3lame", "matroska", False, "matroska"),
    ("ac3", "mp4", False, "mov"),
    ("eac3", "matroska", False, "matroska"),
    ("adpcm_ima_qt", "mov", False, "mov"),
    ("aac", "mov", False, "mov"),
]


@pytest.mark.parametrize(("codec", "container", "exact", "name"), KINDS)
def test_every_kind_is_read(
    tmp_path: Path, codec: str, container: str, exact: bool, name: str
) -> None:
    pictures = 3 if container in ("matroska", "mov", "mp4", "asf") else 0
    # As 16-bit integers, so that all codecs get the same samples.
    song = (containers.integers(SONG).T / np.float32(32768)).astype(np.float32)
    path = film(tmp_path / "song", [(codec, song)], container=container, pictures=pictures)
    info = facts(path)
    assert info.container == name
    assert abs(info.frames - FRAMES) <= 2 * 2048
    assert heard(path).shape == (2, info.frames)
    common = min(info.frames, FRAMES)
    if exact:
        assert info.frames - FRAMES in (0, 1)  # FFmpeg's W64 counts the bytes that fill it up
        assert sounds.snr(song[:, :common], heard(path)[:, :common]) > 100
    else:
        assert _alike(song, heard(path)) > 0.8


def _alike(song: sounds.Samples, other: sounds.Samples) -> float:
    """Correlation of both, wherever the second one begins."""
    size = 1 << 17
    spectrum = np.fft.rfft(song[0], size) * np.conj(np.fft.rfft(other[0], size))
    highest = np.fft.irfft(spectrum).max()
    return float(highest / (np.linalg.norm(song[0]) * np.linalg.norm(other[0])))


def test_sound_of_phones_is_read(tmp_path: Path) -> None:
    voice = sounds.music(1.0, 8_000, channels=1)
    path = film(
        tmp_path / "song", [("libopencore_amrnb", voice)], container="3gp", rate=8_000, pictures=9
    )
    info = facts(path)
    assert (info.codec, info.sample_rate, info.frames) == ("amrnb", 8_000, 8_000)


@pytest.mark.parametrize("container", ["mp4", "mov", "ipod", "matroska"])
def test_the_track_that_is_marked_default_is_the_song(tmp_path: Path, container: str) -> None:
    for default, song in enumerate((SINE, SONG)):
        tracks = [("alac", SINE), ("alac", SONG)]
        path = film(tmp_path / "song", tracks, container=container, default=default)
        assert sounds.snr(song, heard(path)) > 90


def test_a_default_track_that_cannot_be_read_leaves_the_song_to_another(tmp_path: Path) -> None:
    tracks = [("tta", SINE), ("alac", SONG)]
    path = film(tmp_path / "song", tracks, container="matroska", default=0)
    assert sounds.snr(SONG, heard(path)) > 90


def test_pictures_that_last_longer_than_the_sound_do_not_make_it_cut_off(tmp_path: Path) -> None:
    for container in ("mp4", "matroska", "asf"):
        codec = "wmav2" if container == "asf" else "aac"
        path = film(tmp_path / "song", [(codec, SONG)], container=container, pictures=100)
        assert facts(path).seconds == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize("frames", [40_001, 40_500, 41_000])
def test_the_padding_of_aac_in_mp4_is_left_out_to_the_sample(tmp_path: Path, frames: int) -> None:
    path = film(tmp_path / "song.m4a", [("aac", SONG[:, :frames])], container="ipod")
    assert facts(path).frames == frames


def test_the_cut_last_frame_of_surround_is_folded_down_like_the_others(tmp_path: Path) -> None:
    path, song = tmp_path / "song.m4a", np.repeat(SONG[:1, :40_500], 6, axis=0)
    film(path, [("aac", song)], container="ipod")
    assert facts(path).channels == 6
    assert heard(path).shape == (2, 40_500)


def test_itunes_tag_says_where_the_song_ends(tmp_path: Path) -> None:
    path = film(tmp_path / "song.m4a", [("aac", SONG[:, :40_500])], container="ipod")
    file = mp4.MP4(path)
    tag = mp4.MP4FreeForm(b" 00000000 00000400 00000240 9C20")
    file["----:com.apple.iTunes:iTunSMPB"] = [tag]
    file.save()
    assert facts(path).frames == 0x9C20


# Cut off, and not read


CUT = {
    "WMA": ("wmav2", "asf", 0, ""),
    "film in ASF": ("wmav2", "asf", 30, ""),
    "MKV": ("aac", "matroska", 0, ""),
    "film in MKV": ("aac", "matroska", 30, ""),
    "WavPack": ("wavpack", "wv", 0, ""),
    "MP4": ("aac", "mp4", 0, ""),
    "MP4 with its index in front": ("aac", "mp4", 0, "faststart"),
    "MP4 in fragments": ("aac", "mp4", 0, "frag_every_frame+empty_moov"),
    "film in MP4": ("aac", "mp4", 30, "faststart"),
    "CAF": ("alac", "caf", 0, ""),
}


@pytest.mark.parametrize("kind", CUT)
def test_what_is_cut_off_is_told_so(tmp_path: Path, kind: str) -> None:
    codec, container, pictures, flags = CUT[kind]
    song, path = np.tile(SONG, 4), tmp_path / "song"
    film(path, [(codec, song)], container=container, pictures=pictures, movflags=flags)
    facts(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert refused(path).code == "truncated"


def test_a_picture_is_no_song_that_is_cut_off(tmp_path: Path) -> None:
    """HEIC: the same boxes as MP4, with another index."""
    boxes = ((b"ftyp", b"heic" + bytes(4) + b"mif1heic"), (b"meta", bytes(192)), (b"mdat", b"x"))
    data = b"".join(struct.pack(">I4s", 8 + len(inner), kind) + inner for kind, inner in boxes)
    assert refused(put(tmp_path, data)).code == "not_audio"
    assert refused(put(tmp_path, data[:-1])).code == "truncated"


@pytest.mark.parametrize(
    ("data", "codec"),
    [
        (b"MThd\0\0\0\6\0\1\0\1\0\x60MTrk" + bytes(200), "MIDI"),
        (b"#!AMR\n" + bytes(200), "AMR"),
        (b"MAC \x96\x0f" + bytes(200), "Monkey's Audio"),
        (b"RIFF" + bytes(4) + b"AVI LIST" + bytes(200), "AVI"),
        ((b"\x47\x40\0\x10" + bytes(184)) * 9, "MPEG-TS"),
    ],
)
def test_a_kind_that_is_not_read_is_told_its_name(tmp_path: Path, data: bytes, codec: str) -> None:
    fault = refused(put(tmp_path, data))
    assert (fault.code, fault.params) == ("codec_not_read", {"codec": codec})


def test_a_codec_that_is_not_read_is_told_its_name(tmp_path: Path) -> None:
    fault = refused(film(tmp_path / "song", [("tta", SONG)], container="matroska"))
    assert (fault.code, fault.params) == ("codec_not_read", {"codec": "tta"})


def test_what_is_protected_against_copying_is_told_so(tmp_path: Path) -> None:
    path = film(tmp_path / "song.m4a", [("aac", SONG)], container="ipod")
    for mark in (b"drms", b"enca"):
        locked = path.with_name("locked")
        locked.write_bytes(path.read_bytes().replace(b"mp4a", mark, 1))
        with locked.open("rb") as file, pytest.raises(Fault, match="protected"):
            check_index(file.fileno())
