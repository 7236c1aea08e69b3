"""The graph that OpenVINO runs is the network that Demucs runs, whatever its layers look like."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from demucs.htdemucs import HTDemucs

from separations.engine.engine_choice import (
    BFLOAT16,
    FLOAT32,
    OPENVINO,
    Plan,
    cpu_multiplies_bfloat16,
)
from separations.engine.inference.graph import Core, write_graph
from separations.engine.inference.network import Network
from separations.engine.inference.openvino_network import (
    OpenVinoNetwork,
    compile_graph,
    read_compiled,
)
from separations.engine.inference.separator import Separation
from separations.engine.inference.stft import analyse, synthesise
from separations.engine.inference.torch_network import TorchNetwork, load
from separations.engine.options import Options
from separations.engine.process.song_file import SongFile, write_song
from separations.engine.weights.store import ModelInfo, read_model
from tests.support import sounds
from tests.support.models_in_small import FOUR, TRANSFORMER

RATE = sounds.RATE
PLAN = Plan(OPENVINO, FLOAT32, 1)


@pytest.fixture(scope="module")
def info(small_store: Path) -> ModelInfo:
    return read_model(small_store, "tiny")


@pytest.fixture(scope="module")
def graph(info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "0.xml"
    write_graph(load(info, 0), path)
    return path


@pytest.mark.parametrize("samples", [RATE, 44_032, 60_001])
def test_the_spectrum_is_the_one_demucs_makes(samples: int) -> None:
    model = HTDemucs(FOUR, **TRANSFORMER)
    mixture = sounds.music(2.0)[:, :samples]
    wanted = model._magnitude(model._spec(torch.from_numpy(mixture)[None]))[0]
    found = analyse(mixture, model.nfft)
    as_demucs = found.transpose(0, 3, 2, 1).reshape(wanted.shape)
    assert sounds.snr(wanted.numpy(), as_demucs) > 110
    back = synthesise(found, samples)
    theirs = model._ispec(model._spec(torch.from_numpy(mixture)[None]), samples)[0]
    assert sounds.snr(theirs.numpy(), back) > 110


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"dconv_mode": 3, "channels": 16, "growth": 2},
        {"dconv_mode": 0},
        {"bottom_channels": 32, "t_layers": 3},
        {"norm_starts": 2, "dconv_mode": 3},
        {"multi_freqs": [0.5], "multi_freqs_depth": 2},
        {"segment": Fraction(13, 10), "nfft": 2048},
    ],
    ids=str,
)
def test_rewritten_layers_give_what_demucs_does(more: dict[str, Any]) -> None:
    torch.manual_seed(5)
    model = HTDemucs(FOUR, **{**TRANSFORMER, **more}).eval()
    for name, parameter in model.named_parameters():
        # As made, branches are scaled down until they could as well be missing.
        if "layers" in name and ("scale" in name or "gamma" in name):
            parameter.data.fill_(0.5)
        elif name.endswith("norm.bias"):
            parameter.data.normal_(0, 0.3)
    mixture = torch.from_numpy(sounds.music(2.0)[:, : int(model.segment * RATE)])[None]
    with torch.no_grad():
        wanted = model(mixture)[0].numpy()
        spectrum = torch.from_numpy(analyse(mixture[0].numpy(), model.nfft))
        spectra, waves = Core(model)(spectrum, mixture)
    found = [
        synthesise(each, mixture.shape[-1]) + wave
        for each, wave in zip(spectra.numpy(), waves.numpy(), strict=True)
    ]
    assert sounds.snr(wanted, np.stack(found)) > 90


@pytest.mark.parametrize(
    ("frames", "options"),
    [
        (4_410, Options(model="tiny")),
        (RATE, Options(model="tiny")),
        (RATE + 1, Options(model="tiny")),
        (3 * RATE + 17, Options(model="tiny")),
        (3 * RATE, Options(model="tiny", segment=0.8)),
        (2 * RATE, Options(model="tiny", stems="vocals", shifts=2)),
    ],
    ids=["short", "chunk", "chunk+1", "several", "segment", "vocals"],
)
def test_openvino_separates_as_torch_does(
    tmp_path: Path, info: ModelInfo, graph: Path, frames: int, options: Options
) -> None:
    song = write_song(
        sounds.blocks(sounds.music(4.0)[:, :frames]), tmp_path / "mixture.f32", lambda done: None
    )
    compiled = compile_graph(graph, PLAN, 1)
    found = _stems(info, OpenVinoNetwork(compiled, 1, options.segment), song, options)
    wanted = _stems(info, TorchNetwork(info, 0, FLOAT32, options.segment), song, options)
    for name, stem in wanted.items():
        assert sounds.snr(stem, found[name]) > 80, name


def test_a_compiled_network_can_be_kept_and_gives_the_same_bytes(
    tmp_path: Path, info: ModelInfo, graph: Path
) -> None:
    """Also with two chunks at a time, whichever is ready first."""
    plan = Plan(OPENVINO, FLOAT32, 2)
    compiled = compile_graph(graph, plan, 2)
    artefact = tmp_path / "0.compiled"
    artefact.write_bytes(compiled.model.export_model().getbuffer())
    song = write_song(sounds.blocks(sounds.music(6.0)), tmp_path / "mixture.f32", lambda done: None)
    networks = [
        OpenVinoNetwork(each, 2) for each in (compiled, read_compiled(artefact, plan, 2), compiled)
    ]
    results = [_stems(info, network, song, Options(model="tiny"), 2) for network in networks]
    for name, stem in results[0].items():
        assert all(stem.tobytes() == other[name].tobytes() for other in results[1:])


@pytest.mark.skipif(not cpu_multiplies_bfloat16(), reason="this CPU does not know bfloat16")
def test_the_last_layer_stays_in_float32_when_the_rest_does_not(
    tmp_path: Path, graph: Path
) -> None:
    """Also in a network that was kept."""
    plan = Plan(OPENVINO, BFLOAT16, 1)
    compiled = compile_graph(graph, plan, 2)
    artefact = tmp_path / "0.compiled"
    artefact.write_bytes(compiled.model.export_model().getbuffer())
    for each in (compiled, read_compiled(artefact, plan, 2)):
        used: dict[bool, set[str]] = {True: set(), False: set()}
        for node in each.model.get_runtime_model().get_ops():
            about = node.get_rt_info()
            if about["layerType"].astype(str) == "Convolution":
                names = about["originalLayersNames"].astype(str)
                used[".decoder.3." in names].add(about["runtimePrecision"].astype(str))
        assert used == {True: {"f32"}, False: {"bf16"}}


def test_networks_that_take_turns_let_go_of_their_memory(info: ModelInfo, graph: Path) -> None:
    network = OpenVinoNetwork(compile_graph(graph, PLAN, 1), 1, keeps_memory=False)
    mixture = sounds.music(1.0)
    first, second = (network.run(mixture, 0, RATE, [0, 3]) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def _stems(
    info: ModelInfo,
    network: Network,
    song: SongFile,
    options: Options,
    side_by_side: int = 1,
) -> dict[str, sounds.Samples]:
    parts: dict[str, list[sounds.Samples]] = {}
    for block in Separation(info, lambda _part: network, song, options, side_by_side).blocks():
        for name, samples in block.stems.items():
            parts.setdefault(name, []).append(samples)
    return {name: np.concatenate(pieces, axis=1) for name, pieces in parts.items()}
