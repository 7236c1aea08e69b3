"""With the real htdemucs weights: equal to Demucs' own Separator, and as good as it should be."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from demucs.api import Separator
from demucs.apply import BagOfModels

from separations.audio.decode import decode
from separations.audio.stems import read_stem
from separations.engine.host import EngineProcess
from separations.engine.messages import Done, Request
from separations.engine.options import Options
from separations.engine.store import read_model
from separations.engine.torch_network import load
from tests import sounds

MODEL = "htdemucs"
OPTIONS = Options(model=MODEL, engine="torch", precision="float32")
pytestmark = pytest.mark.weights
EXCERPT = 12.0, 21.0  # seconds of reference/mixture.flac
# Energy ratio in dB, a little below what Separator itself reaches there.
SDR = {"drums": 8.9, "bass": 6.1, "other": 4.4, "vocals": 17.5}


def separate(source: Path, staging: Path, store: Path) -> dict[str, sounds.Samples]:
    staging.mkdir()
    request = Request(str(source), str(staging), str(store), str(staging.parent), OPTIONS, 0)
    with EngineProcess() as engine:
        *_, done = engine.run(request, 600.0)
    assert isinstance(done, Done)
    return {
        stem.name: np.concatenate(list(read_stem(staging / f"{stem.name}.flac"))).T
        for stem in done.stems
    }


def test_every_stem_agrees_with_separator_and_with_the_truth(
    tmp_path: Path, real_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """9 s of real music: a chunk and a short one. `make bench` takes the whole of it."""
    mixture = sounds.SHARED / "reference" / "mixture.flac"
    samples = excerpt(mixture if mixture.exists() else sounds.DEMO)  # of whose stems nobody knows
    soundfile.write(tmp_path / "excerpt.wav", samples.T, sounds.RATE, "FLOAT")
    found = separate(tmp_path / "excerpt.wav", tmp_path / "staging", real_store)
    # Separator would look for its weights on the network; it gets the same ones from the store.
    monkeypatch.setattr(
        "demucs.api.get_model", lambda **_: BagOfModels([load(read_model(real_store, MODEL), 0)])
    )
    separator = Separator(model=MODEL, device="cpu", shifts=0)
    _mixture, wanted = separator.separate_tensor(torch.from_numpy(samples))
    assert list(found) == list(wanted)
    for name, stem in wanted.items():
        assert sounds.snr(stem.numpy(), found[name]) >= 60, name
    if mixture.exists():
        for name, least in SDR.items():
            truth = excerpt(mixture.with_name(f"{name}.flac"))
            assert sounds.snr(truth, found[name]) >= least, name


def excerpt(path: Path) -> sounds.Samples:
    start, stop = (int(second * sounds.RATE) for second in EXCERPT)
    return np.ascontiguousarray(np.concatenate(list(decode(path)), axis=1)[:, start:stop])
