"""Find the fastest engine that is good enough, once on a machine.

Each candidate is tried in a process of its own. What was tried stays until all is: measuring may
give way to a song at any moment, or be killed, and goes on from there. This module does not import
torch.
"""

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

from filelock import FileLock, Timeout

from separations.audio.store.stem_file import sync
from separations.engine import engine_choice
from separations.engine.engine_choice import FLOAT32, OPENVINO, TORCH, Choice, Plan, Trial
from separations.engine.options import Options
from separations.engine.tuning.progress import Clock, Report
from separations.engine.tuning.trial_process import POLL_SECONDS, Task, Wait, artefact, run_trial
from separations.engine.weights.store import ModelInfo, read_model

logger = logging.getLogger(__name__)
UNUSED_DAYS = 30
SCRATCH = "trial-"
MEASURING, TRIALS = "measuring", "trials.json"  # what is measured already; stays until all is
USUAL_SECONDS = {"measure": 20.0, "convert": 45.0}
SCRATCH_BYTES = 500_000_000  # the most that a network has, as a graph and compiled
MOST_STREAMS = 2  # each needs some 400 MB of memory; more than two are hardly faster


def known(
    model_dir: Path, engine_dir: Path, options: Options, *, old: bool = True
) -> Choice | None:
    """The choice for a model on this machine; None if it was not measured yet.

    Args:
        options: settled, threads too.
        old: also one that should be measured again, as a plan failed that may work by now.
    """
    model = read_model(model_dir, options.model)
    if not engine_choice.has_alternatives(model, options):
        return Choice(Plan(), (), engine_choice.cpu_name())
    folder = engine_choice.folder_of(engine_dir, model, options)
    found = engine_choice.read_choice(folder, old=old)
    if found is not None:
        with suppress(OSError):  # another user's file
            (folder / engine_choice.FILE_NAME).touch()
    return found


def choose(
    model_dir: Path,
    engine_dir: Path,
    options: Options,
    wait: Wait,
    again: bool = False,
    report: Report = lambda _share, _seconds: None,
) -> Choice:
    """The choice for a model on this machine; measured now if there is none.

    What was measured before `wait` gave up, or the process was killed, is not measured again.

    Args:
        options: settled, threads too.
        wait: called before measuring and a few times a second meanwhile; may raise to give up.
        again: measure even if there is a choice.
        report: called with the share that is done and the seconds that are left.

    Raises:
        OSError: it could not be measured or stored.
    """
    found = None if again else known(model_dir, engine_dir, options, old=False)
    if found is None:
        model = read_model(model_dir, options.model)
        folder = engine_choice.folder_of(engine_dir, model, options)
        folder.mkdir(parents=True, exist_ok=True)
        with _exclusively(engine_dir, wait):
            # Another engine may have measured meanwhile.
            found = None if again else known(model_dir, engine_dir, options, old=False)
            if found is None:
                if again:
                    shutil.rmtree(folder / MEASURING, ignore_errors=True)
                found = _measure(model, model_dir, folder, options, wait, report)
                _delete_unused(engine_dir, model, folder)
    return found


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
                    if problem := run_trial(step, wait).problem:
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
    model: ModelInfo,
    model_dir: Path,
    folder: Path,
    options: Options,
    wait: Wait,
    report: Report,
) -> Choice:
    logger.info("Measuring this machine for %s, once: it takes a minute or two", options.model)
    began = time.monotonic()
    wait()
    scratch = folder / MEASURING
    scratch.mkdir(exist_ok=True)
    trials = _earlier_trials(scratch)
    tried = {trial.plan for trial in trials}
    tasks = [
        Task("measure", str(model_dir), options.model, options.threads, str(scratch), plan)
        for plan in _candidates(options, model)
        if plan not in tried
    ]
    clock = Clock(sum(map(_seconds_of, tasks)), report)
    for task in tasks:
        found = _try(task, wait, clock)
        if found.problem:
            wait()  # raises on a stop, which must not be stored as a failure
            if found.plan == Plan():  # what the others are compared with
                raise OSError(f"{found.plan}: {found.problem}")
        trials.append(found)
        draft = scratch / f"{TRIALS}.part"
        draft.write_text(json.dumps([asdict(trial) for trial in trials]))
        draft.replace(scratch / TRIALS)
        wait()
    chosen = engine_choice.write_choice(folder, trials, options)
    if chosen.plan.engine == OPENVINO:
        _store(artefact(scratch, 0, chosen.plan), artefact(folder, 0, chosen.plan))
    shutil.rmtree(scratch, ignore_errors=True)
    for trial in trials:
        logger.info("%s: %s", trial.plan, describe(trial))
    seconds = time.monotonic() - began
    logger.info("%s runs with %s here (found in %.0f s)", options.model, chosen.plan, seconds)
    return chosen


def _earlier_trials(scratch: Path) -> list[Trial]:
    """What a measurement that gave way, or was killed, has found, but for what may work by now."""
    try:
        kept = json.loads((scratch / TRIALS).read_text())
        trials = list(map(engine_choice.read_trial, kept))
    except (OSError, ValueError, TypeError, KeyError):
        return []
    return [trial for trial in trials if not engine_choice.may_pass(trial)]


def _seconds_of(task: Task) -> float:
    """How long a trial usually takes on two cores, with all that it needs."""
    if task.plan.engine == TORCH:
        return USUAL_SECONDS["measure"]
    graph = Path(task.scratch) / f"{task.part}.xml"
    first = task.plan.precision == FLOAT32 and task.plan.streams == 1 and not graph.exists()
    return USUAL_SECONDS["measure"] + first * USUAL_SECONDS["convert"]


def _try(task: Task, wait: Wait, clock: Clock) -> Trial:
    """The outcome of a plan: what its network needs first, then its benchmark."""
    clock.begin(_seconds_of(task))

    def tick() -> None:
        wait()
        clock.tick()

    steps = [task]
    if task.plan.engine == OPENVINO:
        steps.insert(0, replace(task, step="convert"))
    for step in steps:
        found = run_trial(step, tick)
        if found.problem:
            break
    clock.end()
    return found


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


def _delete_unused(engine_dir: Path, model: ModelInfo, but: Path) -> None:
    """Delete choices for other versions, settings or weights that were not used for UNUSED_DAYS."""
    before = time.time() - UNUSED_DAYS * 24 * 3600
    for folder in engine_choice.folders_of(engine_dir, model):
        kept = folder / engine_choice.FILE_NAME
        with suppress(OSError):  # gone meanwhile
            used = (kept if kept.exists() else folder).stat().st_mtime
            if folder != but and used < before:
                shutil.rmtree(folder, ignore_errors=True)
