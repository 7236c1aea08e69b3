"""Benchmark one plan in a process of its own: `python -m separations.engine.tuning.benchmark TASK`.

Times an engine on a few seconds of real music, compares it with float32 in torch, and leaves the
compiled network in the scratch folder. The answer on standard output is an `engine_choice.Trial`.
"""

import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from separations.audio.child_process import ROOT, claim_stdout
from separations.audio.info import SAMPLE_RATE
from separations.audio.song_reader import decode
from separations.engine import memory, priority
from separations.engine.engine_choice import FLOAT32, TORCH, Trial
from separations.engine.inference.network import Network, Samples
from separations.engine.tuning.trial_process import Task, artefact, read_task
from separations.engine.weights.store import ModelInfo, read_model

MUSIC = ROOT / "static" / "demo" / "feelings.m4a"
REFERENCE = "reference.npy"
LEAST_SNR = 30.0  # dB from float32; below it a plan is ruled out
SILENT = 1e-4  # a source this much weaker than the mixture (energy) counts as silent
LEAST_ERROR = 1e-20  # of the energy: 200 dB count as equal
ROUNDS = 2


def main() -> None:
    channel = claim_stdout()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    priority.lower_priority()
    memory.offer_to_out_of_memory_killer()
    task = read_task(sys.argv[1])
    try:
        found = _run(task)
    except Exception as error:  # noqa: BLE001 (a plan that fails in any way is ruled out)
        found = Trial(task.plan, problem=f"{type(error).__name__}: {error}"[:300])
    with channel:
        json.dump(asdict(found), channel)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def _run(task: Task) -> Trial:
    info = read_model(Path(task.model_dir), task.model)
    if task.step == "convert":
        return _convert(task, info)
    if task.step == "compile":
        return _compile(task)
    if task.plan.engine == TORCH:
        return _try_torch(task, info)
    return _try_openvino(task, info)


def _try_torch(task: Task, info: ModelInfo) -> Trial:
    from separations.engine.inference.torch_network import TorchNetwork, share_cpus

    share_cpus(task.threads, 1)
    network = TorchNetwork(info, task.part, task.plan.precision)
    seconds, estimate = _time(network, _music(info, task.part), len(info.sources), 1)
    reference = Path(task.scratch) / REFERENCE
    if task.plan.precision == FLOAT32:
        np.save(reference, estimate)
        return Trial(task.plan, seconds)
    return _judge(Trial(task.plan, seconds), estimate, np.load(reference))


def _convert(task: Task, info: ModelInfo) -> Trial:
    graph = _graph(task)
    if not graph.exists():
        from separations.engine.inference.graph import write_graph
        from separations.engine.inference.torch_network import load

        part = graph.with_name(f"part-{graph.name}")
        write_graph(load(info, task.part), part)
        # It may have been killed over it; the weights lie beside it.
        part.with_suffix(".bin").replace(graph.with_suffix(".bin"))
        part.replace(graph)
    return Trial(task.plan)


def _compile(task: Task) -> Trial:
    from separations.engine.inference import openvino_network

    compiled = openvino_network.compile_graph(_graph(task), task.plan, task.threads)
    target = artefact(Path(task.scratch), task.part, task.plan)
    target.write_bytes(compiled.model.export_model().getbuffer())
    return Trial(task.plan)


def _try_openvino(task: Task, info: ModelInfo) -> Trial:
    from separations.engine.inference import openvino_network

    _compile(task)
    scratch, streams = Path(task.scratch), task.plan.streams
    kept = artefact(scratch, task.part, task.plan)
    compiled = openvino_network.read_compiled(kept, task.plan, task.threads)
    network = openvino_network.OpenVinoNetwork(compiled, streams)
    seconds, estimate = _time(network, _music(info, task.part), len(info.sources), streams)
    return _judge(Trial(task.plan, seconds), estimate, np.load(scratch / REFERENCE))


def _graph(task: Task) -> Path:
    return Path(task.scratch) / f"{task.part}.xml"


def _music(info: ModelInfo, part: int) -> Samples:
    """Music for one chunk of the network, normalised as songs are; shape (2, samples)."""
    wanted = int(info.segments[part] * SAMPLE_RATE)
    blocks: list[Samples] = []
    for block in decode(MUSIC):
        blocks.append(block)
        if sum(each.shape[1] for each in blocks) >= wanted:
            break
    samples = np.concatenate(blocks, axis=1)
    samples = np.tile(samples, -(-wanted // samples.shape[1]))[:, :wanted]
    mono = samples.mean(axis=0)
    normalised: Samples = ((samples - mono.mean()) / (mono.std() + 1e-8)).astype(np.float32)
    return normalised


def _time(network: Network, music: Samples, sources: int, streams: int) -> tuple[float, Samples]:
    """Seconds a chunk, with `streams` chunks at a time, and the estimate."""

    def once(_number: int) -> Samples:
        return network.run(music, 0, music.shape[1], list(range(sources)))

    with ThreadPoolExecutor(streams) as pool:
        estimate, *_ = pool.map(once, range(streams))  # allocates memory, warms caches
        times = []
        for _ in range(ROUNDS):
            began = time.monotonic()
            list(pool.map(once, range(streams)))
            times.append((time.monotonic() - began) / streams)
    return min(times), estimate


def _judge(trial: Trial, estimate: Samples, reference: Samples) -> Trial:
    """`trial` with its worst stem's SNR, and ruled out if that is too low."""
    energies = np.square(reference, dtype=np.float64).sum(axis=(1, 2))
    errors = np.square(reference - estimate, dtype=np.float64).sum(axis=(1, 2))
    heard = energies > SILENT * energies.sum()
    ratios = energies[heard] / np.maximum(errors[heard], LEAST_ERROR * energies[heard])
    snr = float(10 * np.log10(ratios.min())) if np.isfinite(estimate).all() else -200.0
    refused = f"{snr:.0f} dB from float32, {LEAST_SNR:.0f} are asked for"
    return replace(trial, snr=snr, problem="" if snr >= LEAST_SNR else refused)


if __name__ == "__main__":
    main()
