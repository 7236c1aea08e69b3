"""Packages that a killed pip left half installed, or half removed: forgotten, so that pip installs
them again."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path

from stemsite.setup import paths

# pip writes these last of all; a wheel may bring a RECORD, but of itself only.
WRITTEN_LAST = ("METADATA", "INSTALLER", "RECORD")
MOVED = "~"  # pip renames what it removes so: numpy to ~umpy
ASIDE = ".aside"  # what `torch_build` moved out of the way


def forget() -> list[str]:
    """Delete what says that half-installed packages are installed. Returns their names."""
    names = []
    for folder in _site_packages():
        for left in folder.glob(f"{MOVED}*"):
            shutil.rmtree(left, ignore_errors=True)
        for about in sorted(folder.glob("*.dist-info")):
            if not _is_whole(about):
                shutil.rmtree(about)
                names.append(about.name.split("-")[0])
    return names


def _site_packages() -> Iterator[Path]:
    for pattern in ("lib/python*/site-packages", "Lib/site-packages"):
        yield from paths.VENV.glob(pattern)


def _is_whole(about: Path) -> bool:
    """Whether all files of a package are there, those beside it of the size they should have.

    Not its scripts' sizes: those of pip are fitted to the place of the environment.
    """
    if not all((about / name).is_file() for name in WRITTEN_LAST):
        return False
    with (about / "RECORD").open(encoding="utf-8", newline="") as record:
        for name, _digest, size in (row for row in csv.reader(record) if len(row) == 3):
            file = about.parent / name
            if not file.exists():
                # Compiled files come and go.
                if name.endswith(".pyc") or Path(f"{file}{ASIDE}").exists():
                    continue
                return False
            if size and not name.startswith("..") and file.stat().st_size != int(size):
                return False
    return True
