"""With the real htdemucs weights: equal to Demucs' own Separator, and as good as it should be."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from demucs.api import Separator
from demucs.apply import BagOfModels

from separations.audio.song_reader import decode
from separations.audio.store.stem_file import read_stem
from separations.engine.inference.torch_network import load
from separations.engine.options import Options
from separations.engine.process.engine_process import EngineProcess
from separations.engine.process.engine_protocol import Done, Request
from separations.engine.weights.store import read_model
from tests.support import sounds

MODEL = "htdemucs"
OPTIONS = Options(model=MODEL, engine="torch", precision="float32")
pytestmark = pytest.mark.weights
EXCERPT = 12.0, 21.0  # seconds of reference/mixture.flac
# Energy ratio in dB, a little below what Separator itself reaches there.
SDR = {"drums": 8.9, "bass": 6.1, "other": 4.4, "vocals": 17.5}


OFFSET = 0.02


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    with EngineProcess() as process:
        yield process


def separate(
    engine: EngineProcess, song: sounds.Samples, folder: Path, store: Path
) -> dict[str, sounds.Samples]:
    staging = folder / "staging"
    staging.mkdir()
    source = folder / "excerpt.wav"
    soundfile.write(source, song.T, sounds.RATE, "FLOAT")
    request = Request(str(source), str(staging), str(store), str(folder), OPTIONS, 0)
    *_, done = engine.run(request, 600.0)
    assert isinstance(done, Done)
    return {
        stem.name: np.concatenate(list(read_stem(staging / f"{stem.name}.flac"))).T
        for stem in done.stems
    }


@pytest.fixture(scope="module")
def song() -> sounds.Samples:
    """9 s of real music: a chunk and a short one. `make bench` takes the whole of it."""
    mixture = sounds.SHARED / "reference" / "mixture.flac"
    return excerpt(mixture if mixture.exists() else sounds.DEMO)  # whose true stems are unknown


@pytest.fixture(scope="module")
def found(
    engine: EngineProcess,
    song: sounds.Samples,
    real_store: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, sounds.Samples]:
    """Its stems, as the engine makes them."""
    return separate(engine, song, tmp_path_factory.mktemp("real"), real_store)


def test_every_stem_agrees_with_separator(
    song: sounds.Samples,
    found: dict[str, sounds.Samples],
    real_store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Separator would look for its weights on the network; it gets the same ones from the store.
    monkeypatch.setattr(
        "demucs.api.get_model", lambda **_: BagOfModels([load(read_model(real_store, MODEL), 0)])
    )
    separator = Separator(model=MODEL, device="cpu", shifts=0)
    _mixture, wanted = separator.separate_tensor(torch.from_numpy(song))
    assert list(found) == list(wanted)
    for name, stem in wanted.items():
        assert sounds.snr(stem.numpy(), found[name]) >= 60, name


def test_stems_are_close_to_the_true_ones(found: dict[str, sounds.Samples]) -> None:
    for name, least in SDR.items():
        truth = excerpt(sounds.shared(f"reference/{name}.flac"))
        assert sounds.snr(truth, found[name]) >= least, name


def test_an_offset_is_in_one_stem_alone(
    engine: EngineProcess, song: sounds.Samples, real_store: Path, tmp_path: Path
) -> None:
    piece = song[:, : sounds.RATE] + np.float32(OFFSET)
    stems = separate(engine, piece, tmp_path, real_store)
    assert sounds.snr(piece, np.sum(list(stems.values()), axis=0)) > 20
    for name, stem in stems.items():
        assert stem.mean() == pytest.approx(OFFSET * (name == "other"), abs=0.1 * OFFSET), name


def excerpt(path: Path) -> sounds.Samples:
    start, stop = (int(second * sounds.RATE) for second in EXCERPT)
    return np.ascontiguousarray(np.concatenate(list(decode(path)), axis=1)[:, start:stop])
