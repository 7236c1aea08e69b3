"""Convert an HTDemucs network, without its Fourier transforms, into a fast graph for OpenVINO.

Demucs' own `forward` is used; only its encoder and decoder layers are replaced by equivalent ones
(`tests/engine/test_graph.py` compares them):

- everything stays four-dimensional, (batch, channels, rows of frequency, time), so that the small
  dilated convolutions need no transposes and no batch of 512 songs of six channels;
- the second group norm of a residual branch is known before its tensor is made: mean and variance
  of `W h + b` over channels and time follow from `h`, which has sixteen times fewer channels;
- gated linear units are two convolutions instead of one that is cut in two;
- transposed convolutions over time are plain ones with a row of outputs for each step.

The last layer over frequencies is marked to run in float32 whatever the precision of the rest: in
bfloat16 it alone costs weak stems 10 dB of SNR, and it takes a twentieth of the time.
"""

import copy
import math
import warnings
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from demucs.hdemucs import HDecLayer, HEncLayer
from demucs.transformer import LayerScale
from torch import Tensor, nn
from torch.nn import functional as F

from separations.engine.inference.quiet_openvino import FrontEndManager, openvino


def write_graph(model: Any, path: Path) -> None:
    """Write the graph of the HTDemucs `model` to `path` (.xml, and .bin beside it)."""
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder  # after the quiet one

    if not model.use_train_segment:
        raise ValueError("a model for chunks of any length")
    length = int(model.segment * model.samplerate)
    frames = math.ceil(length / model.hop_length)
    core = Core(model)
    example = (torch.zeros(2, frames, model.nfft // 2, 2), torch.zeros(1, 2, length))
    with torch.no_grad(), warnings.catch_warnings():
        # Tracing warns that it reads lengths, but they are always the same.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            core, example, check_trace=False, strict=False
        )
        decoder = TorchScriptPythonDecoder(traced, example_input=example, skip_freeze=True)
        # Not openvino.convert_model, which sends telemetry.
        frontend = FrontEndManager().load_by_framework("pytorch")
        graph = frontend.convert(frontend.load(decoder))
    shapes = (openvino.PartialShape(list(each.shape)) for each in example)
    graph.reshape(dict(zip(graph.inputs, shapes, strict=True)))
    openvino.save_model(graph, path, compress_to_fp16=False)
    _keep_in_float32(path, f"__module.model.decoder.{len(model.decoder) - 1}")


def _keep_in_float32(graph: Path, layer: str) -> None:
    """Mark all operations of `layer` to run in float32.

    The mark is written into the file, as only OpenVINO's reader can make the attribute
    DisablePrecisionConversion. The CPU plugin reads it under float16's name only.
    """
    tree = ElementTree.parse(graph)  # noqa: S314 (written above)
    marked = 0
    for node in tree.iterfind("layers/layer"):
        inside = node.get("name", "").startswith((f"{layer}.", f"{layer}/"))
        if inside and node.get("type") != "Const":
            info = ElementTree.Element("rt_info")
            mark = {"name": "DisablePrecisionConversion", "version": "0", "value": "dynamic:f16"}
            ElementTree.SubElement(info, "attribute", mark)
            node.insert(0 if node.find("data") is None else 1, info)
            marked += 1
    if not marked:
        raise ValueError(f"no {layer} in the graph")
    tree.write(graph)


class Core(nn.Module):
    """HTDemucs without its Fourier transforms.

    Input: the spectrum of a chunk from `stft.analyse`, and the chunk (1, 2, samples). Output: the
    sources' spectra (sources, 2, frames, bins, 2) and waves (sources, 2, samples); a source is the
    sum of both.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).eval()
        for name in ("encoder", "tencoder"):
            layers = getattr(self.model, name)
            setattr(self.model, name, nn.ModuleList(map(_encoder, layers)))
        for name in ("decoder", "tdecoder"):
            layers = getattr(self.model, name)
            setattr(self.model, name, nn.ModuleList(map(_decoder, layers)))
        for parameter in self.parameters():
            parameter.requires_grad_(False)

    def forward(self, spectrum: Tensor, mixture: Tensor) -> tuple[Tensor, Tensor]:
        _channels, frames, bins, _parts = spectrum.shape
        # In place of the transforms: return the given spectrum, and store the estimated spectra.
        kept = {}
        self.model._spec = lambda _mixture: spectrum
        self.model._magnitude = lambda parts: parts.permute(0, 3, 2, 1).reshape(1, 4, bins, frames)
        self.model._mask = lambda _parts, estimate: estimate

        def keep(estimate: Tensor, _length: int) -> float:
            kept["spectra"] = estimate.reshape(-1, 2, 2, bins, frames).permute(0, 1, 4, 3, 2)
            return 0.0

        self.model._ispec = keep
        waves = self.model(mixture)
        return kept["spectra"], waves[0]


def _encoder(layer: nn.Module) -> nn.Module:
    usual = (
        isinstance(layer, HEncLayer)
        and not layer.empty
        and isinstance(layer.norm1, nn.Identity)
        and layer.rewrite is not None
        and _is_usual(layer.dconv)
    )
    return _Encoder(layer) if usual else layer


def _decoder(layer: nn.Module) -> nn.Module:
    usual = (
        isinstance(layer, HDecLayer)
        and not layer.empty
        and isinstance(layer.norm2, nn.Identity)
        and layer.rewrite is not None
        and layer.kernel_size == 2 * layer.stride
        and _is_usual(layer.dconv)
    )
    return _Decoder(layer) if usual else layer


def _is_usual(dconv: Any) -> bool:
    kinds = [nn.Conv1d, nn.GroupNorm, nn.GELU, nn.Conv1d, nn.GroupNorm, nn.GLU, LayerScale]
    return dconv is None or all([type(each) for each in layer] == kinds for layer in dconv.layers)


def _flat(conv: Any) -> nn.Conv2d:
    """A convolution over time as one over rows and time; others as they are."""
    if isinstance(conv, nn.Conv2d):
        return conv
    return _convolution(
        conv.weight[:, :, None],
        conv.bias,
        stride=(1, *conv.stride),
        padding=(0, *conv.padding),
        dilation=(1, *conv.dilation),
    )


def _convolution(weight: Tensor, bias: Tensor, **more: Any) -> nn.Conv2d:
    made = nn.Conv2d(weight.shape[1], weight.shape[0], (weight.shape[2], weight.shape[3]), **more)
    made.weight = nn.Parameter(weight.float().contiguous(), requires_grad=False)
    made.bias = nn.Parameter(bias.float().contiguous(), requires_grad=False)
    return made


def _pointwise(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    return _convolution(weight[:, :, None, None], bias)


class _Branch(nn.Module):
    """One residual branch of a DConv, added to its input.

    With h the hidden channels (few) and z = W h + b the channels that are normalised, at T times:
    mean(z) is linear in h, and mean(z²) = mean(|R (h, 1)|²) / n for the R of a QR decomposition of
    (W, b), which has no more rows than h has channels, and one. So the normalised z, scaled and
    shifted, is a linear function of h·r, r and mean·r where r is one over the deviation.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        reduce, norm, _gelu, expand, norm_after, _glu, scale = layer
        self.reduce = _flat(reduce)
        self.norm = norm
        self.eps = norm_after.eps
        weight, bias = expand.weight[:, :, 0].double(), expand.bias.double()
        channels = weight.shape[0]
        _q, triangle = torch.linalg.qr(torch.cat([weight, bias[:, None]], 1))
        self.rows = triangle.shape[0]
        means = torch.cat([weight.mean(0), bias.mean()[None]])
        moments = torch.cat([triangle / math.sqrt(channels), means[None]])
        self.moments = _pointwise(moments[:, :-1], moments[:, -1])
        gain, shift = norm_after.weight.double(), norm_after.bias.double()
        linear = torch.cat([gain[:, None] * weight, (gain * bias)[:, None], -gain[:, None]], 1)
        half, scales = channels // 2, scale.scale.double()
        self.value = _pointwise(scales[:, None] * linear[:half], scales * shift[:half])
        self.gate = _pointwise(linear[half:], shift[half:])

    def forward(self, x: Tensor) -> Tensor:
        h = self.reduce(x)
        h = h - h.mean((1, 3), keepdim=True)
        deviation = torch.rsqrt((h * h).mean((1, 3), keepdim=True) + self.norm.eps)
        h = h * deviation * self.norm.weight[:, None, None] + self.norm.bias[:, None, None]
        h = F.gelu(h)
        moments = self.moments(h)
        triangle, means = moments[:, : self.rows], moments[:, self.rows :]
        mean = means.mean(3, keepdim=True)
        square = (triangle * triangle).mean(3, keepdim=True).sum(1, keepdim=True)
        r = torch.rsqrt(square - mean * mean + self.eps)
        over_time = (-1, -1, -1, h.shape[-1])
        h = torch.cat([h * r, r.expand(over_time), (mean * r).expand(over_time)], 1)
        y: Tensor = x + self.value(h) * torch.sigmoid(self.gate(h))
        return y


def _branches(dconv: Any) -> nn.Module:
    if dconv is None:
        return nn.Identity()
    return nn.Sequential(*map(_Branch, dconv.layers))


class _Gated(nn.Module):
    """A convolution and the gated linear unit behind it."""

    def __init__(self, conv: Any) -> None:
        super().__init__()
        conv = _flat(conv)
        half = conv.out_channels // 2
        placed = {"padding": conv.padding}
        self.value = _convolution(conv.weight[:half], conv.bias[:half], **placed)
        self.gate = _convolution(conv.weight[half:], conv.bias[half:], **placed)

    def forward(self, x: Tensor) -> Tensor:
        gated: Tensor = self.value(x) * torch.sigmoid(self.gate(x))
        return gated


class _Encoder(nn.Module):
    """HEncLayer."""

    empty = False  # asked for by HTDemucs.forward

    def __init__(self, layer: HEncLayer) -> None:
        super().__init__()
        self.freq, self.stride = layer.freq, layer.stride
        self.conv = _flat(layer.conv)
        self.branches = _branches(layer.dconv)
        self.rewrite = _Gated(layer.rewrite)

    def forward(self, x: Tensor, inject: Tensor | None = None) -> Tensor:
        if not self.freq:
            x = F.pad(x, (0, -x.shape[-1] % self.stride))[:, :, None]
        y = self.conv(x)
        if inject is not None:
            y = y + (inject[:, :, None] if inject.dim() == 3 else inject)
        z: Tensor = self.rewrite(self.branches(F.gelu(y)))
        return z if self.freq else z[:, :, 0]


class _Decoder(nn.Module):
    """HDecLayer."""

    empty = False

    def __init__(self, layer: HDecLayer) -> None:
        super().__init__()
        self.freq, self.pad, self.last = layer.freq, layer.pad, layer.last
        self.stride, self.chin = layer.stride, layer.chin
        self.rewrite = _Gated(layer.rewrite)
        self.branches = _branches(layer.dconv)
        self.expand = layer.conv_tr if layer.freq else _steps(layer.conv_tr)

    def forward(self, x: Tensor, skip: Tensor, length: int) -> tuple[Tensor, Tensor]:
        if not self.freq:
            x, skip = x[:, :, None], skip[:, :, None]
        elif x.dim() == 3:
            x = x.view(x.shape[0], self.chin, -1, x.shape[-1])
        y = self.branches(self.rewrite(x + skip))
        z = self.expand(y)
        if not self.last:
            z = F.gelu(z)
        if self.freq:
            return z[..., self.pad : -self.pad, :] if self.pad else z, y
        batch, steps, _one, times = z.shape
        z = z.permute(0, 2, 3, 1).reshape(batch, times * self.stride, steps // self.stride)
        samples: Tensor = z.permute(0, 2, 1)[..., self.pad : self.pad + length]
        return samples, y[:, :, 0]


def _steps(conv: nn.ConvTranspose1d) -> nn.Conv2d:
    """A transposed convolution, of kernel 2·stride, as one with its outputs side by side.

    Output sample stride·t + s is weight[s] · x[t] + weight[stride + s] · x[t - 1]; it is found in
    the channels s·n to (s + 1)·n of time t, for n channels. One time more than x has.
    """
    (stride,) = conv.stride
    now, before = conv.weight[:, :, :stride], conv.weight[:, :, stride:]
    both = torch.stack([before, now], -1)  # in, out, step, kernel
    inputs, outputs = both.shape[:2]
    weight = both.permute(2, 1, 0, 3).reshape(stride * outputs, inputs, 1, 2)
    if conv.bias is None:
        raise ValueError("a transposed convolution without bias")
    return _convolution(weight, conv.bias.repeat(stride), padding=(0, 1))
