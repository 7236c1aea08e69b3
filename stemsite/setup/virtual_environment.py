"""The virtual environment .venv: made beside its place and renamed, so that it is whole or absent.

A half-made one (an earlier version's, or a broken one) is replaced. One that answers is kept, as is
one that could not be asked, and one that processes run from.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

from stemsite.setup import paths
from stemsite.setup.steps import StepFailed, run, say, was_interrupted

OLDEST_PYTHON = (3, 11)
PART, OLD = ".part-", ".old-"  # leftovers of set-ups that were killed
# Prints the environment that a Python belongs to, then runs its pip, which must answer.
QUESTION = (
    "import runpy, sys; print(sys.prefix, sys.base_prefix, sep='\\n', flush=True); "
    "sys.argv = ['pip', '--version']; runpy.run_module('pip', run_name='__main__')"
)
ENSUREPIP = ("-I", "-m", "ensurepip", "--default-pip")
PROC = Path("/proc")
LIST = ("-axo", "pid=,command=")


def make_environment() -> None:
    """Make the virtual environment, unless there is a whole one.

    Raises:
        StepFailed: it cannot be made, or must not be replaced now.
    """
    if sys.version_info < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        raise StepFailed(
            f"This is Python {sys.version.split()[0]}; Stemsite needs {wanted} or newer. Install "
            f"it, then run: make PYTHON=python{wanted} run"
        )
    _delete_leftovers()
    # Twice: nothing is thrown away for one answer that failed to come.
    if is_whole() or is_whole():
        return
    if users := processes_in(paths.VENV):
        raise StepFailed(
            f"The virtual environment {paths.VENV.name} is broken, and these processes run from "
            f"it: {', '.join(users)}. Stop the site, then run the same command again."
        )
    say(f"Making a virtual environment in {paths.VENV.name}")
    made = paths.VENV.with_name(f"{paths.VENV.name}{PART}{os.getpid()}")
    try:
        _build(made)
        _move_into_place(made)
    finally:
        _delete(made)


def is_whole() -> bool:
    """Whether there is a virtual environment whose Python and pip answer.

    Raises:
        StepFailed: it could not be asked, as somebody ended the process that did so.
    """
    try:
        question = (str(paths.PYTHON), "-I", "-c", QUESTION)
        answer = run(question, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return False  # no Python in it, or a link to one that is gone
    if was_interrupted(answer.returncode):
        raise StepFailed("The set-up was interrupted. Nothing was changed; run the same again.")
    if answer.returncode != 0:
        return False
    prefix, base = answer.stdout.splitlines()[:2]
    # Without its pyvenv.cfg a half-made one's Python takes itself for the system's.
    return prefix != base and Path(prefix).resolve() == paths.VENV.resolve()


def _build(made: Path) -> None:
    """Make an environment with pip at `made`, to be used at paths.VENV."""
    venv.create(made, clear=True, with_pip=False, prompt=paths.VENV.name)
    python = made / paths.PYTHON.relative_to(paths.VENV)
    own = str(python), *ENSUREPIP
    # Debian has ensurepip in a package of its own; but the system's pip can install pip elsewhere.
    systems = sys.executable, "-m", "pip", "--python", str(python), "install", "pip"
    for command in (own, systems):
        result = run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if result.returncode == 0:
            break
        if was_interrupted(result.returncode):
            raise StepFailed("The set-up was interrupted. Run the same again.")
    else:
        raise StepFailed(
            "This Python can make no virtual environment with pip in it. On Debian and Ubuntu the "
            "package python3-venv (or python3-pip) brings what is missing."
        )
    before, after = os.fsencode(made), os.fsencode(paths.VENV)
    for script in python.parent.iterdir():
        if script.is_symlink() or not script.is_file():
            continue
        text = script.read_bytes()
        if before in text and b"\0" not in text:  # pip.exe of Windows stays; `python -m pip` works
            script.write_bytes(text.replace(before, after))


def _move_into_place(made: Path) -> None:
    """Rename `made` to paths.VENV; what was there goes, a link without what it leads to."""
    old = paths.VENV.with_name(f"{paths.VENV.name}{OLD}{os.getpid()}")
    if os.path.lexists(paths.VENV):
        paths.VENV.rename(old)
    made.rename(paths.VENV)
    _delete(old)


def _delete_leftovers() -> None:
    for kind in (PART, OLD):
        for left in paths.VENV.parent.glob(f"{paths.VENV.name}{kind}*"):
            _delete(left)


def _delete(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def processes_in(folder: Path) -> list[str]:
    """The processes that run from an environment, as "123 (python)"; those that can be seen."""
    # Libraries are named by where they are, whatever the links to that; command lines by either.
    homes = {f"{folder}{os.sep}", f"{folder.resolve()}{os.sep}"}
    found = _by_memory(homes) if (PROC / "self" / "maps").exists() else _by_command(homes)
    return [f"{pid} ({name})" for pid, name in found if pid != os.getpid()]


def _by_memory(homes: set[str]) -> Iterator[tuple[int, str]]:
    """Processes whose Python, or a compiled module of them, lies in one of `homes`."""
    for process in PROC.iterdir():
        if not process.name.isdigit():
            continue
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
            maps = (process / "maps").read_text(errors="replace")
            name = (process / "comm").read_text(errors="replace").strip()
        except OSError:
            continue  # gone, or another user's
        if any(home in maps or command.startswith(home) for home in homes):
            yield int(process.name), name


def _by_command(homes: set[str]) -> Iterator[tuple[int, str]]:
    try:
        listed = run([shutil.which("ps") or "ps", *LIST], stdout=subprocess.PIPE).stdout
    except OSError:
        return
    for line in listed.splitlines():
        pid, _, command = line.strip().partition(" ")
        if any(command.startswith(home) for home in homes):
            yield int(pid), Path(command.split()[0]).name
