"""Files and folders that the clean-up may delete."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import UUID

from separations.disk import disk_space


@dataclass(frozen=True)
class Waste:
    """Something to delete. Where it may come into use again, `remove` checks that once more."""

    kind: str
    name: str
    bytes: int
    remove: Callable[[], object]


def file_waste(kind: str, path: Path, remove: Callable[[], object] | None = None) -> Waste:
    """A file or a folder as waste."""
    return Waste(kind, path.name, disk_space.bytes_at(path), remove or partial(_delete, path))


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted; nothing where there is no folder."""
    return sorted(folder.iterdir()) if folder.is_dir() else []


def is_older_than(path: Path, seconds: float) -> bool:
    """Whether a file was last written longer ago."""
    try:
        return time.time() - path.stat().st_mtime > seconds
    except FileNotFoundError:
        return False


def id_in(name: str) -> UUID:
    """The id in a file's name; one that no row has when there is none in it."""
    try:
        return UUID(name)
    except ValueError:
        return UUID(int=0)
