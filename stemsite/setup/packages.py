"""The virtual environment and the locked packages in it."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from stemsite.setup import paths, torch_build
from stemsite.setup.steps import StepFailed, pip_install, say

OLDEST_PYTHON = (3, 11)


def make_environment() -> None:
    if sys.version_info < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        raise StepFailed(
            f"This is Python {sys.version.split()[0]}; Stemsite needs {wanted} or newer. Install "
            f"it, then run: make PYTHON=python{wanted} run"
        )
    if (
        paths.PYTHON.exists()
        and subprocess.run(
            [paths.PYTHON, "-m", "pip", "--version"], check=False, capture_output=True
        ).returncode
        == 0
    ):
        return
    say("Making a virtual environment in .venv")
    try:
        venv.create(paths.VENV, clear=True, with_pip=True)
        return
    except (OSError, SystemExit, subprocess.CalledProcessError):
        pass  # Debian has ensurepip in a package of its own
    # The system's pip can install pip into a new environment.
    venv.create(paths.VENV, clear=True, with_pip=False)
    seed = [sys.executable, "-m", "pip", "--python", str(paths.PYTHON), "install", "pip"]
    if subprocess.run(seed, check=False, capture_output=True).returncode != 0:
        raise StepFailed(
            "This Python can make no virtual environment with pip in it. On Debian and Ubuntu the "
            "package python3-venv (or python3-pip) brings what is missing."
        )


def install_packages(*, dev: bool) -> None:
    """Install the locked packages, once for each state of the lock file.

    First the locked packages, each file by its hash and without resolving dependencies; then torch,
    whose build depends on the machine and whose dependencies are there by then. A package that is
    still missing has no known hash, and is installed only if UNLOCKED_PACKAGES is yes.
    """
    lock = paths.DEV_LOCK if dev else paths.RUN_LOCK
    stamp = paths.VENV / f"installed-{lock.stem}"
    state = (
        lock.read_bytes(),
        paths.PLATFORMS_LOCK.read_bytes(),
        paths.TORCH.encode(),
        sys.version.encode(),
    )
    wanted = hashlib.sha256(b"".join(state)).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    say(f"Installing the packages of {lock.name} (a few minutes the first time)")
    advice = (
        "A package could not be installed; see above. Check the network (behind a mirror, set "
        "PIP_INDEX_URL) and the free disk space, then run the same command again. Where it says "
        "that hashes do not match, somebody changed a file of a version that is out: do not go on."
    )
    pinned = re.findall(r"^[\w.-]+==[^\s;\\]+", lock.read_text(), re.MULTILINE)
    for each in (lock, paths.PLATFORMS_LOCK):
        if pip_install("--no-deps", "--require-hashes", "-r", str(each), total=len(pinned)) != 0:
            raise StepFailed(advice)
    torch_build.install()
    install_what_is_not_locked(pinned, advice)
    torch_build.mend_torchaudio()
    stamp.write_text(wanted)


def install_what_is_not_locked(pinned: list[str], advice: str) -> None:
    """Install packages that this platform needs beyond the lock files, if that is allowed."""
    check = [str(paths.PYTHON), "-m", "pip", "check", "--disable-pip-version-check"]
    complete = subprocess.run(check, check=False, capture_output=True, text=True)
    if complete.returncode == 0:
        return
    if os.environ.get("UNLOCKED_PACKAGES", "").strip().lower() not in ("1", "true", "yes", "on"):
        raise StepFailed(
            "This platform needs packages whose files the lock files do not know by their hash:\n"
            f"{complete.stdout.strip()}\n"
            "Use one that they are made for (Linux or macOS, Python 3.11 to 3.14), or set "
            "UNLOCKED_PACKAGES=yes to have these installed as the package index offers them."
        )
    say("Installing what the lock files do not hold, without hashes (UNLOCKED_PACKAGES)")
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder) / "names.txt"
        names.write_text("\n".join(pinned))
        if pip_install("-r", str(names), total=len(pinned)) != 0:
            raise StepFailed(advice)
