"""Demucs models with random weights, small enough to run in a blink, in the store's layout."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
import yaml
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs
from safetensors.torch import save_file

FOUR = ["drums", "bass", "other", "vocals"]
SIX = [*FOUR, "guitar", "piano"]
ONE_HOT = [[float(row == column) for column in range(4)] for row in range(4)]
TRANSFORMER = {
    "channels": 8,
    "segment": Fraction(1),
    "t_layers": 1,
    "t_heads": 2,
    "bottom_channels": 0,
    "t_hidden_scale": 1.0,
}


def make_store(folder: Path) -> Path:
    """A model store with a plain model, one of six stems, a one-hot bag and an older network."""
    _bag(folder, "tiny", [_transformer(1, FOUR)])
    _bag(folder, "tiny_6s", [_transformer(2, SIX)])
    _bag(folder, "tiny_ft", [_transformer(seed, FOUR) for seed in (3, 4, 5, 6)], weights=ONE_HOT)
    older = (HDemucs, {"sources": FOUR, "channels": 8, "segment": 3}, 7)
    _bag(folder, "tiny_mdx", [older, (*older[:2], 8)], segment=2)
    return folder


def _transformer(seed: int, sources: list[str]) -> tuple[type, dict[str, Any], int]:
    return (HTDemucs, {"sources": sources, **TRANSFORMER}, seed)


def _bag(
    folder: Path, name: str, parts: list[tuple[type, dict[str, Any], int]], **more: Any
) -> None:
    home = folder / name
    home.mkdir(parents=True)
    signatures = []
    for klass, kwargs, seed in parts:
        signatures.append(f"{seed:08x}")
        torch.manual_seed(seed)
        tensors = {key: value.contiguous() for key, value in klass(**kwargs).state_dict().items()}
        write_model(home / f"{signatures[-1]}.safetensors", klass, kwargs, tensors)
    (home / f"{name}.yaml").write_text(yaml.safe_dump({"models": signatures, **more}))


def write_model(
    path: Path, klass: type | str, kwargs: dict[str, Any], tensors: dict[str, torch.Tensor]
) -> None:
    named = klass if isinstance(klass, str) else f"{klass.__module__}.{klass.__name__}"
    metadata = {"klass": named, "args": "[]", "kwargs": json.dumps(kwargs, default=_fraction)}
    save_file(tensors, path, metadata=metadata)


def _fraction(value: Fraction) -> dict[str, Any]:
    return {"_type": "fraction", "numerator": value.numerator, "denominator": value.denominator}
