"""Stems in pieces for the player, the peaks that are drawn, and how loud they are."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from separations.audio.store.loudness import LoudnessMeter
from separations.audio.store.player_chunks import CHUNK_FRAMES, read_chunk
from separations.audio.store.stem_file import (
    PEAK_FRAMES,
    PEAK_FULL,
    StemWriter,
    peaks_of,
    read_stem,
    readable_cells,
)
from tests.support import sounds


@pytest.fixture
def stem(tmp_path: Path) -> Path:
    """A stem of 3 s that begins quietly and ends far above full scale."""
    path = tmp_path / "stem.flac"
    writer = StemWriter(path)
    rise = np.linspace(0, 6, 3 * sounds.RATE, dtype=np.float32)
    for block in sounds.blocks(sounds.music(3.0) * rise):
        writer.write(block)
    writer.finish()
    return path


def test_chunks_end_to_end_are_the_stem(stem: Path) -> None:
    whole = np.concatenate(list(read_stem(stem))).T
    assert np.abs(whole).max() > 2
    count = -(-whole.shape[1] // CHUNK_FRAMES)
    chunks = [sounds.chunk(stem, index) for index in range(count)]
    assert [each.shape[1] for each in chunks[:-1]] == [CHUNK_FRAMES] * (count - 1)
    played = np.concatenate(chunks, axis=1)
    assert played.shape == whole.shape
    np.testing.assert_allclose(played[:, :CHUNK_FRAMES], whole[:, :CHUNK_FRAMES], atol=2**-14)
    np.testing.assert_allclose(played, whole, atol=2**-13)


def test_there_is_no_chunk_beyond_the_ends(stem: Path) -> None:
    assert read_chunk(stem, -1) is None
    assert read_chunk(stem, 3) is None
    assert read_chunk(stem.with_name("nothing.flac"), 0) is None


@pytest.mark.parametrize("silent", [(0, 0), (0, 14), (0, 10), (4, 14), (2, 12)])
def test_a_stem_is_read_as_far_as_it_is_written(tmp_path: Path, silent: tuple[int, int]) -> None:
    """Silence takes hardly any bytes, so that places in the file tell nothing of the time."""
    path = tmp_path / "stem.flac"
    song = sounds.music(14.0)
    song[:, silent[0] * sounds.RATE : silent[1] * sounds.RATE] = 1e-3
    writer = StemWriter(path)
    for block in sounds.blocks(song):
        writer.write(block)
        for index in range(readable_cells(path)):
            start = index * CHUNK_FRAMES
            expected = song[:, start : start + CHUNK_FRAMES]
            np.testing.assert_allclose(sounds.chunk(path, index), expected, atol=2**-15)
    assert readable_cells(path) == 14 * sounds.RATE // CHUNK_FRAMES - 1
    writer.finish()
    assert readable_cells(path) == -(-14 * sounds.RATE // CHUNK_FRAMES)


def test_the_drawn_peaks_are_just_above_the_samples(stem: Path) -> None:
    whole = np.abs(np.concatenate(list(read_stem(stem)))).max(axis=1)
    exact = np.maximum.reduceat(whole, np.arange(0, len(whole), PEAK_FRAMES))
    bytes_ = np.frombuffer(peaks_of(stem).read_bytes(), np.uint8)
    drawn = np.square(bytes_ / 255) * PEAK_FULL
    assert len(drawn) == len(exact)
    assert (drawn >= np.minimum(exact, PEAK_FULL) * (1 - 1e-5)).all()
    np.testing.assert_allclose(np.sqrt(drawn), np.sqrt(exact), atol=2 * 2 / 255)


def test_loudness_is_that_of_the_recommendation() -> None:
    song = sounds.music(2.0)
    meter = LoudnessMeter()
    for block in sounds.blocks(song):
        meter.add(block.T)
    other = float(torchaudio.functional.loudness(torch.from_numpy(song), sounds.RATE))
    assert meter.loudness == pytest.approx(other, abs=0.15)


def test_silence_has_no_loudness(tmp_path: Path) -> None:
    writer = StemWriter(tmp_path / "stem.flac")
    writer.write(np.zeros((2, 2 * sounds.RATE), np.float32))
    writer.finish()
    assert writer.loudness is None
    assert soundfile.info(tmp_path / "stem.flac").frames == 2 * sounds.RATE
