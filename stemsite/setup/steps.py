"""What all steps of the set-up share: they report, run commands and fail with advice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from stemsite.setup import paths

# Signals by which somebody ends a process; by all others it ends because it is broken.
ENDING = {
    getattr(signal, name)
    for name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
    if hasattr(signal, name)
}
# pip itself refuses to install outside a virtual environment, whatever its Python turns out to be.
PIP_ENVIRONMENT = {"PIP_REQUIRE_VIRTUALENV": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
_kept: list[int] = []


class StepFailed(Exception):
    """A step failed; the text says what to do."""


def say(text: str) -> None:
    print(f"==> {text}", flush=True)


def progress(text: str) -> None:
    """Overwrite one line on a terminal; stay quiet in a log."""
    if sys.stdout.isatty():
        print(f"\r    {text[:70]:<70}", end="" if text else "\r", flush=True)


@contextmanager
def children_keep(file: int) -> Iterator[None]:
    """Let the processes that are started meanwhile inherit the open file `file`."""
    _kept.append(file)
    try:
        yield
    finally:
        _kept.remove(file)


def run(
    command: Sequence[str | Path],
    *,
    stdout: int | None = None,
    stderr: int | None = None,
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command in the project to its end, whatever that is.

    environment: variables beside those of this process.
    """
    return subprocess.run(
        [str(part) for part in command],
        cwd=paths.ROOT,
        env={**os.environ, **PIP_ENVIRONMENT, **(environment or {})},
        check=False,
        stdout=stdout,
        stderr=stderr,
        text=True,
        pass_fds=_kept,
    )


def was_interrupted(status: int) -> bool:
    """Whether somebody ended a process with this status: it says nothing of what it worked on."""
    return -status in ENDING or status == 128 + signal.SIGINT


def call(
    *command: str | Path,
    advice: str,
    quiet: bool = False,
    environment: dict[str, str] | None = None,
) -> None:
    """Run a command in the project; show its output, or only when it fails.

    Raises:
        StepFailed: with `advice`, when the command fails.
    """
    output, errors = (subprocess.PIPE, subprocess.STDOUT) if quiet else (None, None)
    result = run(command, stdout=output, stderr=errors, environment=environment)
    if result.returncode != 0:
        if quiet:
            print(result.stdout)
        raise StepFailed(advice)


def manage(*arguments: str, advice: str, quiet: bool = False) -> None:
    call(paths.PYTHON, "manage.py", *arguments, advice=advice, quiet=quiet)


def pip_install(*arguments: str, total: int) -> int:
    """Run pip, and show a count of packages and its errors. Returns its exit status."""
    seen = 0
    with subprocess.Popen(
        [str(paths.PYTHON), "-m", "pip", "install", *arguments],
        cwd=paths.ROOT,
        env={**os.environ, **PIP_ENVIRONMENT},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        pass_fds=_kept,
    ) as pip:
        for line in pip.stdout or ():
            if line.startswith(("Collecting ", "Requirement already satisfied: ")):
                seen += 1
                name = line.removeprefix("Requirement already satisfied: ")
                progress(f"{seen} of {total}: {name.removeprefix('Collecting ').split()[0]}")
            elif line.startswith("Installing collected"):
                progress("unpacking")
            elif line.startswith("ERROR"):
                print(f"\n{line.rstrip()}")
    progress("")
    return pip.returncode


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there with all of `text`, or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    part.replace(path)
