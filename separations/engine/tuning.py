"""Finding the fastest engine that is good enough, once on a machine.

Each candidate is tried in a process of its own (`separations.engine.trial`): one that crashes,
hangs or cannot be imported is out of the running, and its memory is given back. No torch here.
"""

import json
import logging
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from separations.audio.stems import sync
from separations.engine import choice
from separations.engine.choice import OPENVINO, TORCH, Choice, Plan, Trial
from separations.engine.options import Options
from separations.engine.store import ModelInfo, read_model

logger = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[2]
TRIAL_SECONDS = 300
LOOK_SECONDS = 2.0
UNUSED_DAYS = 30
SCRATCH = "trial-"
MOST_STREAMS = 2  # each costs some 400 MB of memory; more than two win hardly any time

Wait = Callable[[], None]


@dataclass(frozen=True)
class Task:
    """What a trial does with one network of a bag.

    step: to convert it to a graph, to compile the graph for `plan`, or to measure `plan` (and leave
        what was compiled for it). Steps apart, as each takes as much memory as a separation.
    scratch: folder for what the steps share.
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
    """The choice for a model on this machine; measured now if it never was.

    Args:
        options: settled, threads too.
        wait: called every other second while it is measured; may raise to give up.
        again: measure whatever is known already.

    Raises:
        OSError: it could not be measured, or not kept.
    """
    model = read_model(model_dir, options.model)
    if not choice.has_alternatives(model, options):
        return Choice(Plan(), (), choice.cpu_name())
    folder = choice.folder_of(engine_dir, model, options)
    known = None if again else choice.read_choice(folder)
    if known is None:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(engine_dir, wait):
            # Another engine may have been quicker.
            known = None if again else choice.read_choice(folder)
            if known is None:
                known = _measure(model, model_dir, folder, options, wait)
                _forget_the_unused(engine_dir, model, folder)
    with suppress(OSError):  # somebody else's: then it is theirs to keep
        (folder / choice.FILE_NAME).touch()
    return known


def compiled(
    model_dir: Path, engine_dir: Path, options: Options, part: int, plan: Plan, wait: Wait
) -> Path:
    """The compiled network `part` of a bag, made now if it never was.

    Raises:
        OSError: it could not be made.
    """
    model = read_model(model_dir, options.model)
    folder = choice.folder_of(engine_dir, model, options)
    wanted = artefact(folder, part, plan)
    if not wanted.exists():
        with _alone(engine_dir, wait), _scratch(folder) as scratch:
            if not wanted.exists():
                task = Task(
                    "convert", str(model_dir), model.name, options.threads, scratch, plan, part
                )
                for step in (task, replace(task, step="compile")):
                    if problem := _try(step, wait).problem:
                        raise OSError(f"{model.name}, part {part}: {problem}")
                _keep(artefact(Path(scratch), part, plan), wanted)
    return wanted


def words(trial: Trial) -> str:
    """A trial's outcome in words."""
    if trial.problem:
        return trial.problem
    compared = "" if trial.snr is None else f", {trial.snr:.0f} dB from float32 in torch"
    return f"{trial.seconds:.2f} s a chunk{compared}"


@contextmanager
def _scratch(folder: Path) -> Iterator[str]:
    """A folder to work in, without what a process left that was killed. Under the lock only."""
    for left in folder.glob(f"{SCRATCH}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=SCRATCH) as scratch:
        yield scratch


def _keep(made: Path, wanted: Path) -> None:
    """Move a compiled network to its place, when all of it is on the disk."""
    sync(made)
    made.replace(wanted)


def _alone(engine_dir: Path, wait: Wait) -> AbstractContextManager[object]:
    """The lock of all engines, held: two at a time would not measure the machine."""
    lock = FileLock(engine_dir / "lock")
    while True:
        try:
            held: AbstractContextManager[object] = lock.acquire(timeout=LOOK_SECONDS)
        except Timeout:
            wait()
        else:
            return held


def _measure(
    model: ModelInfo, model_dir: Path, folder: Path, options: Options, wait: Wait
) -> Choice:
    logger.info("Measuring this machine for %s, once: it takes about a minute", options.model)
    began = time.monotonic()
    with _scratch(folder) as scratch:
        trials: list[Trial] = []
        for plan in _candidates(options, model):
            task = Task("measure", str(model_dir), options.model, options.threads, scratch, plan)
            steps = [task]
            if plan.engine == OPENVINO:
                steps.insert(0, replace(task, step="convert"))
            for step in steps:
                found = _try(step, wait)
                if found.problem:
                    break
            trials.append(found)
            wait()  # a stop must not look like a failure
        chosen = choice.write_choice(folder, trials, options)
        if chosen.plan.engine == OPENVINO:
            _keep(artefact(Path(scratch), 0, chosen.plan), artefact(folder, 0, chosen.plan))
    for trial in trials:
        logger.info("%s: %s", trial.plan, words(trial))
    seconds = time.monotonic() - began
    logger.info("%s runs with %s here (found in %.0f s)", options.model, chosen.plan, seconds)
    return chosen


def _candidates(options: Options, model: ModelInfo) -> list[Plan]:
    """What is tried. Torch in float32 comes first: the others are compared with it."""
    precisions = choice.wanted_precisions(options)
    plans = [Plan(TORCH, precision) for precision in precisions]
    if options.engine != TORCH:
        plans += [
            Plan(OPENVINO, precision, streams)
            for precision in precisions
            for streams in _streams(options, model)
        ]
    return plans


def _streams(options: Options, model: ModelInfo) -> tuple[int, ...]:
    """How many chunks at a time OpenVINO is tried with."""
    if options.jobs:
        return (options.jobs,)
    if model.passes > 1:
        return (1,)  # its networks take turns, and each holds its weights
    return tuple(range(1, min(MOST_STREAMS, options.threads) + 1))


def _try(task: Task, wait: Wait) -> Trial:
    """Have a process of its own do `task`; what it found out, or why it did not."""
    command = [sys.executable, "-m", "separations.engine.trial", json.dumps(asdict(task))]
    with tempfile.TemporaryFile("w+", dir=task.scratch) as answer:
        # While the pipe to it is open, so is its parent's life: the child watches it.
        # In a session of its own: what stops the site must not look like a failure of the trial.
        child = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=answer, start_new_session=True
        )
        try:
            ends = time.monotonic() + TRIAL_SECONDS
            while child.poll() is None:
                try:
                    child.wait(LOOK_SECONDS)
                except subprocess.TimeoutExpired:
                    wait()
                if time.monotonic() > ends:
                    return Trial(task.plan, problem=f"no result after {TRIAL_SECONDS} s")
        finally:
            child.kill()
            child.wait()
            if child.stdin is not None:
                child.stdin.close()
        answer.seek(0)
        try:
            found = json.loads(answer.read())
        except ValueError:
            return Trial(task.plan, problem=f"its process ended with status {child.returncode}")
    return choice.read_trial(found)


def _forget_the_unused(engine_dir: Path, model: ModelInfo, but: Path) -> None:
    """Delete what was made for other versions, settings or weights and is not used any more."""
    before = time.time() - UNUSED_DAYS * 24 * 3600
    for folder in choice.folders_of(engine_dir, model):
        kept = folder / choice.FILE_NAME
        with suppress(OSError):  # gone meanwhile
            used = (kept if kept.exists() else folder).stat().st_mtime
            if folder != but and used < before:
                shutil.rmtree(folder, ignore_errors=True)
