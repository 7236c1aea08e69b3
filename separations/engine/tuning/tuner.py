"""Find the fastest engine that is good enough, once on a machine.

Each candidate runs in a process of its own (`engine.tuning.benchmark`): one that crashes, hangs or
cannot be imported is ruled out, and its memory is freed. This module does not import torch.
"""

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from separations.audio import child_process
from separations.audio.store.stem_file import sync
from separations.engine import engine_choice
from separations.engine.engine_choice import OPENVINO, TORCH, Choice, Plan, Trial
from separations.engine.options import Options
from separations.engine.weights.store import ModelInfo, read_model

logger = logging.getLogger(__name__)
BENCHMARK = "separations.engine.tuning.benchmark"
TRIAL_SECONDS = 300
POLL_SECONDS = 2.0
UNUSED_DAYS = 30
SCRATCH = "trial-"
SCRATCH_BYTES = 500_000_000  # the most that a network has, as a graph and compiled
MOST_STREAMS = 2  # each needs some 400 MB of memory; more than two are hardly faster

Wait = Callable[[], None]


@dataclass(frozen=True)
class Task:
    """A step of a benchmark, for one network of a bag.

    step: convert the network to a graph, compile the graph for `plan`, or measure `plan` (which
        leaves the compiled network). Each step is a process, as it needs a separation's memory.
    scratch: a folder that the steps share.
    """

    step: Literal["convert", "compile", "measure"]
    model_dir: str
    model: str
    threads: int
    scratch: str
    plan: Plan
    part: int = 0


def read_task(text: str) -> Task:
    fields = json.loads(text)
    return Task(**{**fields, "plan": Plan(**fields["plan"])})


def artefact(folder: Path, part: int, plan: Plan) -> Path:
    """Where the compiled network `part` lies."""
    return folder / f"{part}-{plan.precision}-{plan.streams}.compiled"


def choose(
    model_dir: Path, engine_dir: Path, options: Options, wait: Wait, again: bool = False
) -> Choice:
    """The choice for a model on this machine; measured now if there is none.

    Args:
        options: settled, threads too.
        wait: called before measuring and every two seconds meanwhile; may raise to give up.
        again: measure even if there is a choice.

    Raises:
        OSError: it could not be measured or stored.
    """
    model = read_model(model_dir, options.model)
    if not engine_choice.has_alternatives(model, options):
        return Choice(Plan(), (), engine_choice.cpu_name())
    folder = engine_choice.folder_of(engine_dir, model, options)
    known = None if again else engine_choice.read_choice(folder)
    if known is None:
        folder.mkdir(parents=True, exist_ok=True)
        with _exclusively(engine_dir, wait):
            # Another engine may have measured meanwhile.
            known = None if again else engine_choice.read_choice(folder)
            if known is None:
                known = _measure(model, model_dir, folder, options, wait)
                _delete_unused(engine_dir, model, folder)
    with suppress(OSError):  # another user's file
        (folder / engine_choice.FILE_NAME).touch()
    return known


def compiled(
    model_dir: Path, engine_dir: Path, options: Options, part: int, plan: Plan, wait: Wait
) -> Path:
    """The compiled network `part` of a bag, compiled now if it is missing.

    Raises:
        OSError: it could not be compiled.
    """
    model = read_model(model_dir, options.model)
    folder = engine_choice.folder_of(engine_dir, model, options)
    wanted = artefact(folder, part, plan)
    if not wanted.exists():
        with _exclusively(engine_dir, wait), _scratch(folder) as scratch:
            if not wanted.exists():
                wait()
                task = Task(
                    "convert", str(model_dir), model.name, options.threads, scratch, plan, part
                )
                for step in (task, replace(task, step="compile")):
                    if problem := _run_trial(step, wait).problem:
                        raise OSError(f"{model.name}, part {part}: {problem}")
                _store(artefact(Path(scratch), part, plan), wanted)
    return wanted


def describe(trial: Trial) -> str:
    """A trial's outcome in words."""
    if trial.problem:
        return trial.problem
    compared = "" if trial.snr is None else f", {trial.snr:.0f} dB from float32 in torch"
    return f"{trial.seconds:.2f} s a chunk{compared}"


@contextmanager
def _scratch(folder: Path) -> Iterator[str]:
    """A temporary folder; deletes those of killed processes. Call it under the lock only."""
    for left in folder.glob(f"{SCRATCH}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=SCRATCH) as scratch:
        yield scratch


def _store(made: Path, wanted: Path) -> None:
    """Move a compiled network to its place, once all of it is on the disk."""
    sync(made)
    made.replace(wanted)


def _exclusively(engine_dir: Path, wait: Wait) -> AbstractContextManager[object]:
    """Hold the lock of all engines: two at a time would measure each other."""
    lock = FileLock(engine_dir / "lock")
    while True:
        try:
            held: AbstractContextManager[object] = lock.acquire(timeout=POLL_SECONDS)
        except Timeout:
            wait()
        else:
            return held


def _measure(
    model: ModelInfo, model_dir: Path, folder: Path, options: Options, wait: Wait
) -> Choice:
    logger.info("Measuring this machine for %s, once: it takes about a minute", options.model)
    began = time.monotonic()
    wait()
    with _scratch(folder) as scratch:
        trials: list[Trial] = []
        for plan in _candidates(options, model):
            task = Task("measure", str(model_dir), options.model, options.threads, scratch, plan)
            steps = [task]
            if plan.engine == OPENVINO:
                steps.insert(0, replace(task, step="convert"))
            for step in steps:
                found = _run_trial(step, wait)
                if found.problem:
                    break
            trials.append(found)
            wait()  # raises on a stop, which must not be stored as a failure
        chosen = engine_choice.write_choice(folder, trials, options)
        if chosen.plan.engine == OPENVINO:
            _store(artefact(Path(scratch), 0, chosen.plan), artefact(folder, 0, chosen.plan))
    for trial in trials:
        logger.info("%s: %s", trial.plan, describe(trial))
    seconds = time.monotonic() - began
    logger.info("%s runs with %s here (found in %.0f s)", options.model, chosen.plan, seconds)
    return chosen


def _candidates(options: Options, model: ModelInfo) -> list[Plan]:
    """The plans to try. Torch in float32 comes first: the others are compared with it."""
    precisions = engine_choice.wanted_precisions(options)
    plans = [Plan(TORCH, precision) for precision in precisions]
    if options.engine != TORCH:
        plans += [
            Plan(OPENVINO, precision, streams)
            for precision in precisions
            for streams in _streams(options, model)
        ]
    return plans


def _streams(options: Options, model: ModelInfo) -> tuple[int, ...]:
    """The numbers of chunks at a time to try OpenVINO with."""
    if options.jobs:
        return (options.jobs,)
    if model.passes > 1:
        return (1,)  # its networks run in turn, and each holds its weights
    return tuple(range(1, min(MOST_STREAMS, options.threads) + 1))


def _run_trial(task: Task, wait: Wait) -> Trial:
    """Run `task` in a process of its own; its outcome, or why it has none."""
    with tempfile.TemporaryFile("w+", dir=task.scratch) as answer:
        # The pipe to its standard input closes when this process dies, which ends the child.
        child = child_process.start(BENCHMARK, json.dumps(asdict(task)), stdout=answer)
        try:
            ends = time.monotonic() + TRIAL_SECONDS
            while child_process.wait(child, POLL_SECONDS) is None:
                wait()
                if time.monotonic() > ends:
                    return Trial(task.plan, problem=f"no result after {TRIAL_SECONDS} s")
        finally:
            child_process.kill(child)
        answer.seek(0)
        try:
            found = json.loads(answer.read())
        except ValueError:
            return Trial(task.plan, problem=f"its process ended with status {child.returncode}")
    return engine_choice.read_trial(found)


def _delete_unused(engine_dir: Path, model: ModelInfo, but: Path) -> None:
    """Delete choices for other versions, settings or weights that were not used for UNUSED_DAYS."""
    before = time.time() - UNUSED_DAYS * 24 * 3600
    for folder in engine_choice.folders_of(engine_dir, model):
        kept = folder / engine_choice.FILE_NAME
        with suppress(OSError):  # gone meanwhile
            used = (kept if kept.exists() else folder).stat().st_mtime
            if folder != but and used < before:
                shutil.rmtree(folder, ignore_errors=True)
