"""Read and store which engine runs a model on this machine, in which number format.

This module imports neither torch nor OpenVINO, so that readers of a choice do not load them.

ENGINE_DIR/htdemucs-0123456789abcdef/choice.json   what was tried and what was chosen
ENGINE_DIR/htdemucs-0123456789abcdef/0-….compiled  the first network of the bag, for OpenVINO
"""

import hashlib
import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from separations.engine.options import AUTO, Options
from separations.engine.weights import checksums
from separations.engine.weights.store import TRANSFORMER, ModelInfo

Engine = Literal["torch", "openvino"]
Precision = Literal["float32", "bfloat16"]
TORCH: Engine = "torch"
OPENVINO: Engine = "openvino"
FLOAT32: Precision = "float32"
BFLOAT16: Precision = "bfloat16"
PRECISION_HINTS: dict[Precision, str] = {FLOAT32: "f32", BFLOAT16: "bf16"}
# CPUs that multiply bfloat16 themselves; all others would be slower with it than without.
BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
GRAPH_VERSION = 2  # raised when graphs are made in another way: compiled ones are not used again
CPU_INFO = Path("/proc/cpuinfo")
FILE_NAME = "choice.json"
TRY_AGAIN_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Plan:
    """How a model is run. streams: chunks that OpenVINO works on at a time."""

    engine: Engine = TORCH
    precision: Precision = FLOAT32
    streams: int = 1

    def __str__(self) -> str:
        several = f", {self.streams} chunks at a time" if self.streams > 1 else ""
        return f"{self.engine} {self.precision}{several}"


@dataclass(frozen=True)
class Trial:
    """The outcome of a benchmark of one plan.

    seconds: for each chunk. snr: dB against float32 in torch, of the worst stem that is not silent.
    problem: why the plan is ruled out, if it is.
    """

    plan: Plan
    seconds: float = 0.0
    snr: float | None = None
    problem: str = ""


@dataclass(frozen=True)
class Choice:
    """The plan for a model on this machine, and what it was chosen from."""

    plan: Plan
    trials: tuple[Trial, ...]
    cpu: str


def has_alternatives(model: ModelInfo, options: Options) -> bool:
    """Whether more than one plan is possible for this model and these options."""
    suitable = options.device == "cpu" and all(klass == TRANSFORMER for klass in model.classes)
    fixed = options.engine == TORCH and not wanted_precisions(options)[1:]
    return suitable and not fixed


def wanted_precisions(options: Options) -> list[Precision]:
    """The number formats to try, float32 first, as the one that remains if others fail."""
    half = options.precision != FLOAT32 and cpu_multiplies_bfloat16()
    return [FLOAT32, BFLOAT16] if half else [FLOAT32]


def folder_of(engine_dir: Path, model: ModelInfo, options: Options) -> Path:
    """The folder of the choice for a model: its name depends on CPU, versions, model and settings.

    The options' threads must be settled.
    """
    facts = {
        "cpu": _cpu(),
        "model": model.digest,
        "graph": GRAPH_VERSION,
        "versions": [_version(name) for name in ("openvino", "torch", "demucs")],
        "asked": [options.engine, options.precision, options.threads, options.jobs],
    }
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return engine_dir / f"{_prefix(model)}{digest[:16]}"


def folders_of(engine_dir: Path, model: ModelInfo) -> list[Path]:
    """The folders of all stored choices for a model."""
    return sorted(engine_dir.glob(f"{_prefix(model)}{'[0-9a-f]' * 16}"))


def _prefix(model: ModelInfo) -> str:
    return model.name.replace("/", "--") + "-"


def read_trial(fields: dict[str, Any]) -> Trial:
    """A trial from what `asdict` made of it."""
    return Trial(**{**fields, "plan": Plan(**fields["plan"])})


def best_guess(model: ModelInfo, options: Options) -> Plan:
    """The plan for songs until this machine is measured: the one whose first sound comes soonest.

    That is torch, as OpenVINO needs a network converted first (45 s). Where the CPU multiplies
    bfloat16, that is nearly twice as fast as float32 (see docs/performance.md), and good enough
    for weights that are known; of others only measuring tells.
    """
    trusted = options.precision == BFLOAT16 or checksums.was_known(model)
    possible = has_alternatives(model, options) and BFLOAT16 in wanted_precisions(options)
    return Plan(TORCH, BFLOAT16 if possible and trusted else FLOAT32)


def may_pass(trial: Trial) -> bool:
    """Whether a plan failed for a reason that may pass, such as a lack of memory or of time.

    A package that is not installed is none: another version is another choice, see `folder_of`.
    """
    lacks_package = trial.problem.startswith(("ModuleNotFoundError:", "ImportError:"))
    return bool(trial.problem) and trial.snr is None and not lacks_package


def read_choice(folder: Path, *, old: bool = False) -> Choice | None:
    """The stored choice.

    None if there is none that can be read; or, unless `old` ones will do, if a plan failed more
    than a day ago for a reason that may have passed.
    """
    try:
        kept = json.loads((folder / FILE_NAME).read_text())
        trials = tuple(map(read_trial, kept["trials"]))
        hopeful = any(map(may_pass, trials))
        if not old and hopeful and time.time() - kept["at"] > TRY_AGAIN_SECONDS:
            return None
        return Choice(Plan(**kept["plan"]), trials, kept["cpu"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_choice(folder: Path, trials: list[Trial], options: Options) -> Choice:
    """Choose from the trials, and store the choice."""
    choice = Choice(_fastest(trials, options), tuple(trials), cpu_name())
    draft = folder / f"{FILE_NAME}.{os.getpid()}"
    draft.write_text(json.dumps({**asdict(choice), "at": int(time.time())}, indent=1))
    draft.replace(folder / FILE_NAME)
    return choice


def _fastest(trials: list[Trial], options: Options) -> Plan:
    """The fastest plan that succeeded and meets the options, or as many of them as possible."""
    good = [trial for trial in trials if not trial.problem]
    right = [trial for trial in good if options.engine in (AUTO, trial.plan.engine)]
    exact = [trial for trial in right if options.precision in (AUTO, trial.plan.precision)]
    among = exact or right or good
    return min(among, key=lambda trial: trial.seconds).plan if among else Plan()


@lru_cache(maxsize=1)
def cpu_name() -> str:
    """The CPU's model name."""
    return _cpu_field("model name") or platform.processor() or platform.machine()


def cpu_multiplies_bfloat16() -> bool:
    flags = set((_cpu_field("flags") or _cpu_field("Features")).split())
    return any(flag in flags for flag in BFLOAT16_FLAGS)


def _cpu() -> list[str]:
    flags = _cpu_field("flags") or _cpu_field("Features")
    return [cpu_name(), platform.machine(), " ".join(sorted(flags.split()))]


@lru_cache(maxsize=8)
def _cpu_field(name: str) -> str:
    """A field of the first CPU in /proc/cpuinfo, empty where there is none."""
    try:
        lines = CPU_INFO.read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
