"""Run a step of a benchmark in a process of its own, `engine.tuning.benchmark`.

What crashes, hangs or cannot be imported is ruled out, and its memory is freed.
"""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from separations.audio import child_process
from separations.engine import engine_choice
from separations.engine.engine_choice import Plan, Trial

BENCHMARK = "separations.engine.tuning.benchmark"
TRIAL_SECONDS = 300
POLL_SECONDS = 0.25  # a song that comes meanwhile does not wait

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


def run_trial(task: Task, wait: Wait) -> Trial:
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
