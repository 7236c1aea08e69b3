"""Starting and ending the site's own Python processes: decoders, engines, benchmarks.

Each has a session of its own. A Ctrl-C in the terminal does not reach it, so its parent decides
when it ends; and it is killed together with all that it started.
"""

import ctypes
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, TextIO

logger = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[2]
END_SECONDS = 10.0

LONGEST_PAUSE = 60.0
WELL_SECONDS = 60.0  # a process that ran for so long had started well
PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None

PythonProcess = subprocess.Popen[bytes]


class RestartPause:
    """How long to wait before a process that ended is started again: 1, 2, 4 … 60 seconds.

    Without it, a process that cannot live would take the CPU with its starts.
    """

    def __init__(self) -> None:
        self._in_a_row = 0

    def after(self, ran: float) -> float:
        """The pause after a process ended that ran for `ran` seconds."""
        if ran >= WELL_SECONDS:
            self.reset()
        self._in_a_row += 1
        return float(min(LONGEST_PAUSE, 2.0 ** min(self._in_a_row - 1, 10)))

    def reset(self) -> None:
        """Begin again with a second: the process did what it was started for."""
        self._in_a_row = 0


def end_with_parent(number: int) -> None:
    """Have the kernel send this process a signal when its parent dies; on Linux.

    The parent is the thread that started it (prctl(2)).
    """
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(number), 0, 0, 0)


def start(
    module: str,
    *arguments: str,
    stdin: IO[bytes] | int = subprocess.PIPE,
    stdout: IO[bytes] | IO[str] | int = subprocess.PIPE,
    stderr: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> PythonProcess:
    """Start `python -m MODULE ARGUMENTS…`.

    Args:
        stderr: None for the parent's own, where logs go.
        environment: all that the process gets to know; None for the parent's own.

    Raises:
        OSError: it cannot be started.
    """
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=environment,
        cwd=ROOT,
        start_new_session=True,
    )


def wait(child: PythonProcess, seconds: float = END_SECONDS) -> int | None:
    """The status with which a process ends; None if it does not within `seconds`."""
    try:
        return child.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def ending(status: int | None) -> str:
    """How a process ended, in words, from what `wait` gave."""
    if status is None:
        return "its answers closed, but it goes on"
    if status < 0:
        with suppress(ValueError):
            return f"signal {signal.Signals(-status).name}"
    return f"status {status}"


def kill(child: PythonProcess) -> None:
    """End a process at once, with all that it started, and close its pipes."""
    if child.returncode is None:  # else its number may be another's by now
        with suppress(ProcessLookupError, PermissionError):  # macOS says the latter of zombies
            os.killpg(child.pid, signal.SIGKILL)
        if wait(child) is None:
            logger.error("Process %s cannot be killed", child.pid)
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            with suppress(OSError):  # what is left to write goes nowhere
                pipe.close()


def claim_stdout() -> TextIO:
    """In a child: standard output for its answers alone, a line at a time.

    What libraries print goes to standard error, the log, from now on.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    return answers
