"""Check the SHA-256 of model weights, at each fetch and whenever they are loaded.

- For the official models that most sites use, the SHA-256 are here. They come from several
  independent public records of the hub's files (November 2026), which agree; the files themselves
  could not be fetched where this was written.
- For any other model the files that were fetched first are recorded, in RECORD beside them: later
  ones must be the same.

A user who can write to the store can change the record too: `manage.py check` names those users.
"""

import json
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from separations.engine.weights import store
from separations.errors.fault import Fault

RECORD = "checksums.json"
WEIGHTS = {
    # htdemucs
    "955717e8": "d9fa14133cfcc034a6758923bb3a8ca9f8dfd0b582134643bbf83f72c17576dd",
    # htdemucs_ft: drums, bass, other, vocals
    "f7e0c4bc": "2c85ab3c62dd6edd8e0b965e38b16fd1cdde357cc25de6b6bc9ce7c83f60925f",
    "d12395a8": "5b01a97567ae9a3178a6236fb520251045c03eb8834bc8c24a4eec11d6c8fb56",
    "92cfc3b6": "a241863551f30d01c42bd7b97da40839922ead3acb0f1fcab25682f55b4eeb59",
    "04573f0d": "68854b0d7c2b3274723b5761f6fd9f5aec5f1bcd3f0de7c1669546fdb7871b7c",
    # htdemucs_6s
    "5c90dfd2": "d2a1745f0744721f6b8ca5bf469b67c651ea5ed1b52998cab033b2158609d411",
}


class UnexpectedWeights(Exception):
    """Weights or a bag differ from the expected ones; the text states how."""


def sums(info: store.ModelInfo) -> dict[str, str]:
    """The SHA-256 of a model's files by their names: its weights, and the bag."""
    files = [*info.files, info.folder / f"{info.folder.name}.yaml"]
    return {file.name: store.file_digest(file) for file in files}


def is_pinned(info: store.ModelInfo) -> bool:
    """Whether all its weights have the SHA-256 in WEIGHTS."""
    pairs = zip(info.signatures, info.files, strict=True)
    return all(WEIGHTS.get(signature) == store.file_digest(file) for signature, file in pairs)


def check_official(info: store.ModelInfo) -> None:
    """Compare an official model from the hub with Demucs' own bag and with WEIGHTS.

    Raises UnexpectedWeights.
    """
    last = info.name.rsplit("/", 1)[-1]
    own = _own_bag(last)
    if own is not None and own != yaml.safe_load((info.folder / f"{last}.yaml").read_text()):
        raise UnexpectedWeights(f"{last}.yaml is not the one that the package demucs has")
    for file, signature in zip(info.files, info.signatures, strict=True):
        if signature in WEIGHTS and store.file_digest(file) != WEIGHTS[signature]:
            raise UnexpectedWeights(_differs(file.name))


def _own_bag(name: str) -> Any:
    """The bag of that name in the package demucs, without importing it; None if there is none."""
    spec = find_spec("demucs")
    path = Path(spec.origin or "").parent / "remote" / f"{name}.yaml" if spec else Path()
    return yaml.safe_load(path.read_text()) if path.is_file() else None


def check_against_source(info: store.ModelInfo, stated: dict[str, str]) -> None:
    """Compare files with the SHA-256 that their source states, by name.

    Raises UnexpectedWeights.
    """
    for file in info.files:
        if stated.get(file.name, store.file_digest(file)) != store.file_digest(file):
            raise UnexpectedWeights(_differs(file.name))


def check_against_operator(info: store.ModelInfo, asked: Iterable[str]) -> None:
    """Compare the weights with the operator's SHA-256, if any. Raises UnexpectedWeights."""
    wanted = {each.lower() for each in asked}
    there = {store.file_digest(file) for file in info.files}
    if wanted and wanted != there:
        raise UnexpectedWeights(f"its weights have the SHA-256 {', '.join(sorted(there))}")


def check_against_first(info: store.ModelInfo, home: Path) -> None:
    """Compare fetched weights with those first fetched to `home`. Raises UnexpectedWeights."""
    first = _recorded(home)
    changed = [name for name, found in sums(info).items() if first.get(name, found) != found]
    if changed:
        raise UnexpectedWeights(
            f"{', '.join(changed)}: not the file that was fetched first (its SHA-256 differs). If "
            "it was meant to change, add --accept-change"
        )


def record(info: store.ModelInfo, source: str, *, known: bool) -> None:
    """Record the SHA-256 of the model's files.

    known: whether their SHA-256 was known beforehand, or these are only the first files fetched.
    """
    content = {"source": source, "known": known, "sha256": sums(info)}
    partial = info.folder / f"{RECORD}.part"
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.replace(info.folder / RECORD)


def check_unchanged(info: store.ModelInfo) -> None:
    """Compare the model's files with the record, if there is one.

    Raises:
        Fault: model_unusable.
    """
    first = _recorded(info.folder)
    for name, found in sums(info).items():
        if first.get(name, found) != found:
            reason = (
                f"{name} is not the file that was fetched (its SHA-256 differs). Fetch it anew: "
                f"manage.py fetch_models {info.name}. If you changed it: the same with "
                "--accept-change"
            )
            raise Fault("model_unusable", model=info.name, reason=reason)


def was_known(info: store.ModelInfo) -> bool:
    """Whether the SHA-256 of the fetched files were known beforehand."""
    return _record_of(info.folder).get("known") is True


def _recorded(folder: Path) -> dict[str, str]:
    found = _record_of(folder).get("sha256")
    return found if isinstance(found, dict) else {}


def _record_of(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _differs(name: str) -> str:
    return f"{name} is not the file that was expected (its SHA-256 differs)"
