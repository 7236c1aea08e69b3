"""The separator equals Demucs' own, chunk borders and all, on small random-weight models."""

import math
import random
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from demucs.apply import BagOfModels, apply_model

from separations.engine.engine_choice import FLOAT32
from separations.engine.inference import separator
from separations.engine.inference.network import Network
from separations.engine.inference.separator import Separation
from separations.engine.inference.torch_network import TorchNetwork, load
from separations.engine.options import Options
from separations.engine.process.song_file import SongFile, write_song
from separations.engine.weights.store import ModelInfo, read_model
from tests.support import sounds

RATE = sounds.RATE
Stems = dict[str, sounds.Samples]


class Bag:
    """A bag of models as Demucs has it, and its networks as ours."""

    def __init__(self, info: ModelInfo) -> None:
        self.info = info
        models = [load(info, part) for part in range(info.passes)]
        self.demucs = BagOfModels(models, [list(row) for row in info.weights])
        self.runs: list[int] = []  # the parts that ran

    def separation(self, song: SongFile, options: Options) -> Separation:
        loaded: dict[int, Network] = {}

        def network(part: int) -> Network:
            self.runs.append(part)
            if part not in loaded:
                loaded[part] = TorchNetwork(self.info, part, FLOAT32, options.segment)
            return loaded[part]

        return Separation(self.info, network, song, options, max(1, options.jobs))


@pytest.fixture(scope="module")
def bags(small_store: Path) -> Callable[[str], Bag]:
    return lru_cache(lambda name: Bag(read_model(small_store, name)))


def song_file(folder: Path, samples: sounds.Samples) -> SongFile:
    return write_song(sounds.blocks(samples), folder / "mixture.f32", lambda frames: None)


def ours(bag: Bag, song: SongFile, options: Options) -> Stems:
    """All blocks of a separation joined; they must follow on one another."""
    at = 0
    parts: dict[str, list[sounds.Samples]] = {}
    for block in bag.separation(song, options).blocks():
        assert block.start == at
        at += block.frames
        for name, samples in block.stems.items():
            parts.setdefault(name, []).append(samples)
    assert at == song.frames
    return {name: np.concatenate(pieces, axis=1) for name, pieces in parts.items()}


def demucs(bag: Bag, samples: sounds.Samples, options: Options) -> Stems:
    """What demucs.api.Separator.separate_tensor does with the same samples."""
    wav = torch.from_numpy(samples)
    reference = wav.mean(0)
    mean, deviation = reference.mean(), reference.std() + 1e-8
    out = apply_model(
        bag.demucs,
        ((wav - mean) / deviation)[None],
        shifts=options.shifts,
        split=options.split,
        overlap=options.overlap,
        segment=options.segment,
        device="cpu",
    )
    return dict(zip(bag.info.sources, (out * deviation + mean)[0].numpy(), strict=True))


def assert_equal(found: Stems, wanted: Stems) -> None:
    assert list(found) == list(wanted)
    for name, samples in wanted.items():
        assert found[name].shape == samples.shape
        assert sounds.snr(samples, found[name]) > 90, name


@pytest.mark.parametrize(
    "frames",
    [4_410, RATE - 1, RATE, RATE + 1, int(0.75 * RATE), int(0.75 * RATE) + 1, 3 * RATE + 17],
    ids=["short", "chunk-1", "chunk", "chunk+1", "stride", "stride+1", "several"],
)
def test_it_equals_demucs_whatever_the_length(
    tmp_path: Path, bags: Callable[[str], Bag], frames: int
) -> None:
    samples = sounds.music(4.0)[:, :frames]
    samples += np.float32(0.0005) - samples.mean()  # as the mean of music, not as an offset
    options = Options(model="tiny")
    found = ours(bags("tiny"), song_file(tmp_path, samples), options)
    assert_equal(found, demucs(bags("tiny"), samples, options))


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("tiny", Options(overlap=0.0)),
        ("tiny", Options(overlap=0.6)),
        ("tiny", Options(segment=0.8)),
        ("tiny", Options(jobs=2)),
        ("tiny_6s", Options()),
        ("tiny_ft", Options()),
        ("tiny_mdx", Options()),
        ("tiny_mdx", Options(segment=1.5, overlap=0.1)),
        ("tiny_mdx", Options(split=False, overlap=0.0)),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_it_equals_demucs_with_every_option(
    tmp_path: Path, bags: Callable[[str], Bag], model: str, options: Options
) -> None:
    samples = sounds.music(3.3)
    found = ours(bags(model), song_file(tmp_path, samples), options)
    assert_equal(found, demucs(bags(model), samples, options))


@pytest.mark.parametrize("model", ["tiny", "tiny_mdx"])
def test_shifted_passes_are_demucs_with_seeded_offsets(
    tmp_path: Path,
    bags: Callable[[str], Bag],
    monkeypatch: pytest.MonkeyPatch,
    model: str,
) -> None:
    samples, options = sounds.music(2.4), Options(shifts=3)
    song = song_file(tmp_path, samples)
    separation = bags(model).separation(song, options)
    leads = [lead for index in range(bags(model).info.passes) for lead in separation._leads(index)]
    assert len(set(leads)) == len(leads)
    offsets = iter([RATE // 2 - lead for lead in leads])
    monkeypatch.setattr(random, "randint", lambda low, high: next(offsets))
    wanted = demucs(bags(model), samples, options)
    assert_equal(ours(bags(model), song, options), wanted)


def test_the_same_song_gives_the_same_bytes(tmp_path: Path, bags: Callable[[str], Bag]) -> None:
    song = song_file(tmp_path, sounds.music(2.5))
    first, second = (ours(bags("tiny"), song, Options(shifts=2)) for _ in range(2))
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


@pytest.mark.parametrize("rest", ["mixture", "sum"])
def test_one_stem_and_the_rest(tmp_path: Path, bags: Callable[[str], Bag], rest: str) -> None:
    samples = sounds.music(2.5)
    song = song_file(tmp_path, samples)
    stems = ours(bags("tiny"), song, Options())
    pair = ours(bags("tiny"), song, Options(stems="vocals", rest=rest))  # type: ignore[arg-type]
    assert list(pair) == ["vocals", "instrumental"]
    np.testing.assert_allclose(pair["vocals"], stems["vocals"], atol=1e-6)
    wanted = (
        samples - stems["vocals"]
        if rest == "mixture"
        else stems["drums"] + stems["bass"] + stems["other"]
    )
    np.testing.assert_allclose(pair["instrumental"], wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("offsets", "options"),
    [
        ((0.02, 0.02), Options()),
        ((0.02, 0.0), Options()),
        ((0.2, -0.2), Options()),
        ((0.02, 0.02), Options(stems="vocals", rest="mixture")),
        ((0.02, 0.02), Options(stems="vocals", rest="sum")),
        ((0.02, 0.0), Options(stems="other", rest="sum")),
    ],
    ids=lambda value: f"{value.stems}-{value.rest}" if isinstance(value, Options) else str(value),
)
def test_one_stem_alone_gets_an_offset(
    tmp_path: Path, bags: Callable[[str], Bag], offsets: tuple[float, float], options: Options
) -> None:
    samples = sounds.music(1.2)
    samples -= samples.mean(axis=1, keepdims=True)
    offset = np.array(offsets, np.float32)[:, None]
    plain = ours(bags("tiny"), song_file(tmp_path, samples), options)
    found = ours(bags("tiny"), song_file(tmp_path, samples + offset), options)
    carrier = "instrumental" if options.stems == "vocals" else "other"
    assert_equal(found, {name: stem + offset * (name == carrier) for name, stem in plain.items()})
    missing, missing_too = (  # in the stems' sum
        np.abs(song - sum(stems.values())).max()
        for song, stems in ((samples, plain), (samples + offset, found))
    )
    assert missing_too == pytest.approx(missing, abs=1e-6)


def test_models_of_unneeded_sources_do_not_run(tmp_path: Path, bags: Callable[[str], Bag]) -> None:
    bag, song = bags("tiny_ft"), song_file(tmp_path, sounds.music(2.0))
    bag.runs.clear()
    ours(bag, song, Options())
    assert sorted(set(bag.runs)) == [0, 1, 2, 3]
    everything = len(bag.runs)
    bag.runs.clear()
    ours(bag, song, Options(stems="vocals"))
    assert bag.runs == [3] * (everything // 4)


def test_what_is_silent_for_a_whole_chunk_does_not_run(
    tmp_path: Path, bags: Callable[[str], Bag]
) -> None:
    music = sounds.music(2.0) + np.float32(0.01)
    silence = np.zeros((2, 8 * RATE), np.float32)
    song = song_file(tmp_path, np.concatenate((music, silence, music), axis=1))
    bag = bags("tiny")
    bag.runs.clear()
    stems = ours(bag, song, Options())
    assert len(bag.runs) < 10  # of 16 chunks
    for stem in stems.values():
        assert np.abs(stem[:, 5 * RATE : 7 * RATE]).max() < 2**-22
        assert np.abs(stem[:, -RATE:]).max() > 2**-10


def test_silence_separates_into_silence(tmp_path: Path, bags: Callable[[str], Bag]) -> None:
    silence = np.zeros((2, 2 * RATE), np.float32)
    stems = ours(bags("tiny"), song_file(tmp_path, silence), Options())
    assert max(np.abs(samples).max() for samples in stems.values()) < 2**-22


def test_progress_counts_every_run_and_ends_at_all(
    tmp_path: Path, bags: Callable[[str], Bag]
) -> None:
    song = song_file(tmp_path, sounds.music(2.0))
    seen: list[tuple[int, int]] = []
    separation = bags("tiny_ft").separation(song, Options(shifts=2))
    for _block in separation.blocks(lambda done, total: seen.append((done, total))):
        pass
    stride = int(0.75 * RATE)
    leads = [lead for model in range(4) for lead in separation._leads(model)]
    total = sum(math.ceil((song.frames + lead) / stride) for lead in leads)
    assert len(leads) == 4 * 2  # models × shifts
    assert seen == [(done, total) for done in range(1, total + 1)]


def test_memory_does_not_grow_with_the_song(
    tmp_path: Path, bags: Callable[[str], Bag], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The most of the song that waits to be finished is what neighbouring chunks cover."""
    waiting = []
    add = separator._OverlapAdd.add

    def measured(mixer: separator._OverlapAdd, start: int, samples: sounds.Samples) -> None:
        add(mixer, start, samples)
        waiting.append(mixer._open.shape[-1])

    monkeypatch.setattr(separator._OverlapAdd, "add", measured)
    song = song_file(tmp_path, sounds.music(12.0))
    for _block in bags("tiny").separation(song, Options(shifts=2)).blocks():
        pass
    assert max(waiting) < 2 * RATE


def test_the_song_on_disk_has_the_statistics_torch_would_give(tmp_path: Path) -> None:
    samples = sounds.music(3.0) + np.float32(0.1)
    song = song_file(tmp_path, samples)
    mono = torch.from_numpy(samples).mean(0)
    assert song.means == pytest.approx(samples.mean(axis=1, dtype=np.float64), rel=1e-5)
    assert song.mean == pytest.approx(float(mono.mean()), rel=1e-5)
    assert song.deviation == pytest.approx(float(mono.std()), rel=1e-5)
    np.testing.assert_array_equal(song.read(100, 2_000), samples[:, 100:2_000])


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="tells of Linux only")
def test_what_was_read_of_a_song_does_not_stay_in_memory(tmp_path: Path) -> None:
    song = song_file(tmp_path, sounds.music(60.0))
    whole = song.frames * 8
    for start in range(0, song.frames - RATE, RATE):
        song.read(start, start + RATE)
    maps = Path("/proc/self/smaps").read_text().split(str(tmp_path / "mixture.f32"))
    resident = sum(int(re.findall(r"Rss:\s+(\d+) kB", part)[0]) * 1024 for part in maps[1:])
    assert len(maps) > 1
    assert resident < whole / 10
