"""What all steps of the set-up share: they report, run commands and fail with advice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from stemsite.setup import paths


class StepFailed(Exception):
    """A step failed; the text says what to do."""


def say(text: str) -> None:
    print(f"==> {text}", flush=True)


def progress(text: str) -> None:
    """Overwrite one line on a terminal; stay quiet in a log."""
    if sys.stdout.isatty():
        print(f"\r    {text[:70]:<70}", end="" if text else "\r", flush=True)


def call(
    *command: str | Path,
    advice: str,
    quiet: bool = False,
    environment: dict[str, str] | None = None,
) -> None:
    """Run a command in the project; show its output, or only when it fails.

    environment: variables beside those of this process.

    Raises:
        StepFailed: with `advice`, when the command fails.
    """
    result = subprocess.run(
        [str(part) for part in command],
        cwd=paths.ROOT,
        env={**os.environ, **(environment or {})},
        check=False,
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.STDOUT if quiet else None,
        text=True,
    )
    if result.returncode != 0:
        if quiet:
            print(result.stdout)
        raise StepFailed(advice)


def manage(*arguments: str, advice: str, quiet: bool = False) -> None:
    call(paths.PYTHON, "manage.py", *arguments, advice=advice, quiet=quiet)


def pip_install(*arguments: str, total: int) -> int:
    """Run pip, and show a count of packages and its errors. Returns its exit status."""
    command = [str(paths.PYTHON), "-m", "pip", "install", "--disable-pip-version-check", *arguments]
    seen = 0
    with subprocess.Popen(
        command, cwd=paths.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
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
