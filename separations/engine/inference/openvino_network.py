"""Run HTDemucs networks with OpenVINO, from a compiled artefact (`engine.inference.graph`)."""

import queue
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from separations.audio.info import SAMPLE_RATE
from separations.engine.engine_choice import PRECISION_HINTS, Plan
from separations.engine.inference.network import Samples, window
from separations.engine.inference.quiet_openvino import openvino
from separations.engine.inference.stft import analyse, synthesise


@dataclass(frozen=True)
class Compiled:
    """A network compiled for this CPU.

    references: objects that it reads from; OpenVINO crashes if they are freed before it.
    """

    model: Any
    references: tuple[Any, ...]


def compile_graph(graph: Path, plan: Plan, threads: int) -> Compiled:
    """Compile the graph in the file `graph`."""
    core = openvino.Core()
    return Compiled(core.compile_model(graph, "CPU", _configuration(plan, threads)), (core,))


def read_compiled(artefact: Path, plan: Plan, threads: int) -> Compiled:
    """Load the artefact of a compiled network without reading all of it into memory.

    Raises:
        RuntimeError: the artefact is not what this build of OpenVINO wrote.
    """
    core = openvino.Core()
    content = openvino.Tensor(np.memmap(artefact, np.uint8, "c"), shared_memory=True)
    model = core.import_model(content, "CPU", _configuration(plan, threads))
    return Compiled(model, (core, content))


def _configuration(plan: Plan, threads: int) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": PRECISION_HINTS[plan.precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": plan.streams,
        # Slots are processes: with pinning each would use the same first CPUs.
        "ENABLE_CPU_PINNING": False,
    }


class OpenVinoNetwork:
    """One compiled network, which runs as many chunks at a time as it has streams.

    segment: the most seconds of a chunk, None for the network's own.
    keeps_memory: whether a run's memory stays allocated for the next one. False for networks that
        run in turn, which would hold several times as much as they use.
    """

    def __init__(
        self,
        compiled: Compiled,
        streams: int,
        segment: float | None = None,
        keeps_memory: bool = True,
    ) -> None:
        spectrum, mixture = compiled.model.inputs
        self._nfft, self._length = 2 * spectrum.shape[2], mixture.shape[2]
        self._segment = int(segment * SAMPLE_RATE) if segment else self._length
        self._compiled, self._keeps_memory = compiled, keeps_memory
        self._counting, self._busy = threading.Lock(), 0
        self._requests: queue.LifoQueue[Any] = queue.LifoQueue()
        for _ in range(streams):
            self._requests.put(compiled.model.create_infer_request())

    def run(self, mixture: Samples, context: int, length: int, sources: list[int]) -> Samples:
        part, before = window(mixture, context, length, self._segment)
        # Chunks shorter than in training are padded with silence, as HTDemucs does.
        whole = np.zeros((2, self._length), np.float32)
        whole[:, : part.shape[1]] = part
        spectrum = analyse(whole, self._nfft)
        estimate = np.empty((len(sources), 2, length), np.float32)
        request = self._acquire()
        try:
            spectra, waves = request.infer(
                [spectrum, whole[None]], share_inputs=True, share_outputs=True
            ).values()
            for row, source in enumerate(sources):
                wave = synthesise(spectra[source], self._length) + waves[source]
                estimate[row] = wave[:, before : before + length]
        finally:
            self._release(request)
        return estimate

    def _acquire(self) -> Any:
        request = self._requests.get()
        with self._counting:
            self._busy += 1
        return request

    def _release(self, request: Any) -> None:
        with self._counting:
            self._busy -= 1
            if not self._busy and not self._keeps_memory:
                self._compiled.model.release_memory()  # an error while a request runs
        self._requests.put(request)
