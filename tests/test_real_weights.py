"""With the real htdemucs weights: equal to Demucs' own Separator, and as good as it should be."""

import shutil
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
# energy ratio, dB: what issue and reference ask of the stems of reference/mixture.flac
SDR = {"drums": 8.4, "bass": 8.3, "other": 5.0, "vocals": 17.5}


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


def test_every_stem_agrees_with_separator(
    tmp_path: Path, real_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """9 s of real music: a chunk and a short one."""
    with soundfile.SoundFile(tmp_path / "excerpt.wav", "w", 44_100, 2, "FLOAT") as excerpt:
        for block in decode(sounds.DEMO):
            excerpt.write(block.T)
            if excerpt.frames > 9 * 44_100:
                break
    samples = soundfile.read(tmp_path / "excerpt.wav", dtype="float32")[0].T
    found = separate(tmp_path / "excerpt.wav", tmp_path / "staging", real_store)
    # Separator would look for its weights on the network; it gets the same ones from the store.
    monkeypatch.setattr(
        "demucs.api.get_model", lambda **_: BagOfModels([load(read_model(real_store, MODEL), 0)])
    )
    separator = Separator(model=MODEL, device="cpu", shifts=0)
    _mixture, wanted = separator.separate_tensor(torch.from_numpy(np.ascontiguousarray(samples)))
    assert list(found) == list(wanted)
    for name, stem in wanted.items():
        assert sounds.snr(stem.numpy(), found[name]) >= 60, name


def test_the_reference_mixture_reaches_its_sdr(tmp_path: Path, real_store: Path) -> None:
    source = sounds.shared("reference/mixture.flac")
    stems = separate(source, tmp_path / "staging", real_store)
    shutil.rmtree(tmp_path / "staging")
    for name, least in SDR.items():
        truth = soundfile.read(source.with_name(f"{name}.flac"), dtype="float32")[0].T
        found = sounds.snr(truth, stems[name])
        print(f"{name}: SDR {found:.2f} dB")
        assert found >= least, name
