"""The locked packages, installed into the virtual environment."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from stemsite.setup import half_installed, paths, torch_build
from stemsite.setup.steps import StepFailed, pip_install, run, say, write_whole

STAMP = "installed-"


def install_packages(*, dev: bool) -> None:
    """Install the locked packages, once for each state of the lock file.

    First the locked packages, each file by its hash and without resolving dependencies; then torch,
    whose build depends on the machine and whose dependencies are there by then. A package that is
    still missing has no known hash, and is installed only if UNLOCKED_PACKAGES is yes.
    """
    lock = paths.DEV_LOCK if dev else paths.RUN_LOCK
    stamp, wanted = _stamp(lock), _state(lock)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    say(f"Installing the packages of {lock.name} (a few minutes the first time)")
    advice = (
        "A package could not be installed; see above. Check the network (behind a mirror, set "
        "PIP_INDEX_URL) and the free disk space, then run the same command again. Where it says "
        "that hashes do not match, somebody changed a file of a version that is out: do not go on."
    )
    # Before anything changes: what is killed from here on is not complete, whatever it was before.
    for each in paths.VENV.glob(f"{STAMP}*"):
        each.unlink()
    if left := half_installed.forget():
        say(f"An earlier set-up was ended in the middle; anew: {', '.join(left)}")
    pinned = _pinned(lock)
    for each in (lock, paths.PLATFORMS_LOCK):
        if pip_install("--no-deps", "--require-hashes", "-r", str(each), total=len(pinned)) != 0:
            raise StepFailed(advice)
    torch_build.install()
    install_what_is_not_locked(pinned, advice)
    torch_build.mend_torchaudio()
    write_whole(stamp, wanted)
    if dev and set(_pinned(paths.RUN_LOCK)) <= set(pinned):  # the one lock file holds the other
        write_whole(_stamp(paths.RUN_LOCK), _state(paths.RUN_LOCK))


def _stamp(lock: Path) -> Path:
    """The file that says which state of a lock file is installed completely."""
    return paths.VENV / f"{STAMP}{lock.stem}"


def _state(lock: Path) -> str:
    files = lock.read_bytes(), paths.PLATFORMS_LOCK.read_bytes()
    state = *files, paths.TORCH.encode(), sys.version.encode()
    return hashlib.sha256(b"".join(state)).hexdigest()


def _pinned(lock: Path) -> list[str]:
    return re.findall(r"^[\w.-]+==[^\s;\\]+", lock.read_text(), re.MULTILINE)


def install_what_is_not_locked(pinned: list[str], advice: str) -> None:
    """Install packages that this platform needs beyond the lock files, if that is allowed."""
    complete = run([paths.PYTHON, "-m", "pip", "check"], stdout=subprocess.PIPE)
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
