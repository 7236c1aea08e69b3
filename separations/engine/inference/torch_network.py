"""Run networks with torch through Demucs' own `apply_model`: any model, any device."""

from typing import Any

import torch
from demucs.apply import TensorChunk, apply_model
from demucs.hf import load_safetensors_model

from separations.engine.engine_choice import BFLOAT16, Precision
from separations.engine.inference.network import Samples
from separations.engine.weights import checksums
from separations.engine.weights.store import ModelInfo, read_header
from separations.errors.fault import Fault


def load(info: ModelInfo, part: int) -> Any:
    """Load the torch module of one part of the bag `info`, from the store only.

    Raises:
        Fault: model_unusable if a file is not the fetched one, or does not match its header.
    """
    file = info.files[part]
    checksums.check_unchanged(info)
    try:
        read_header(file)  # checks the class before anything imports it
        model = load_safetensors_model(file)
    except (OSError, ValueError, RuntimeError, AssertionError, TypeError) as error:
        raise Fault("model_unusable", model=info.name, reason=str(error)[:200]) from error
    model.segment = info.segments[part]  # a bag may shorten it
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def share_cpus(threads: int, side_by_side: int) -> None:
    """Divide `threads` CPUs between chunks that run at a time."""
    torch.set_num_threads(max(1, threads // side_by_side))


class TorchNetwork:
    """One model in torch.

    segment: the most seconds of a chunk, None for the model's own.
    """

    def __init__(
        self,
        info: ModelInfo,
        part: int,
        precision: Precision,
        segment: float | None = None,
        device: str = "cpu",
    ) -> None:
        self._segment, self._device = segment, torch.device(device)
        self._model = load(info, part).to(self._device)
        self._half = precision == BFLOAT16
        if self._half:
            _keep_in_float32(self._model.decoder[-1])  # see separations.engine.inference.graph

    def run(self, mixture: Samples, context: int, length: int, sources: list[int]) -> Samples:
        chunk = TensorChunk(torch.from_numpy(mixture)[None], context, length)
        # Attention's fast path writes out the whole attention matrix; it is slower and larger.
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._half):
            estimate = apply_model(
                self._model,
                chunk,
                shifts=0,
                split=False,
                segment=self._segment,
                device=self._device,
            )[0, sources]
        samples: Samples = estimate.float().cpu().numpy()
        return samples


def _keep_in_float32(layer: Any) -> None:
    """Exempt a decoder layer from autocast, so that it runs in float32."""
    forward = layer.forward

    def exact(x: torch.Tensor, skip: torch.Tensor, length: int) -> Any:
        with torch.autocast("cpu", enabled=False):
            return forward(x.float(), skip.float(), length)

    layer.forward = exact
