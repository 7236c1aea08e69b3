"""DATA_DIR: made when the site starts, and closed to other users of the machine.

It holds songs and the database with sessions and password hashes. The site's own user may read it,
and DATA_DIR's group where GROUP_ACCESS is yes.
"""

import logging
import os
import stat
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

logger = logging.getLogger(__name__)

OTHERS, GROUP = stat.S_IRWXO, stat.S_IRWXG


class DataFolderIsOpen(Exception):
    """Other users of the machine can reach DATA_DIR, and its mode could not be changed."""


def set_umask() -> None:
    """Make new files private, also those of child processes. Every process calls this first."""
    os.umask(GROUP | OTHERS)
    with suppress(ImproperlyConfigured):  # another setting; then nothing is written either
        from stemsite import settings  # here: `manage.py help` works with a wrong setting too

        os.umask(forbidden_bits(group=settings.GROUP_ACCESS))


def prepare() -> None:
    """Make DATA_DIR, its folders, the secret key and the queue's tables; close DATA_DIR to others.

    For a process that begins to work, several at the same moment too. What exists stays. Ends the
    process with a message if DATA_DIR cannot be used or stays open.

    Raises:
        ImproperlyConfigured: a setting does not fit.
    """
    set_umask()
    from stemsite import settings

    try:
        make(settings.DATA_DIR, settings.DATA_FOLDERS)
        close(settings.DATA_DIR, group=settings.GROUP_ACCESS)
        str(settings.SECRET_KEY)  # read, or made
    except (DataFolderIsOpen, ImproperlyConfigured) as error:
        sys.exit(f"The site does not start: {error}")
    settings.HUEY.create_tables()


def make(folder: Path, inner: Iterable[Path]) -> None:
    """Make `folder`, for its owner alone, and the folders in it.

    Raises:
        ImproperlyConfigured: with the reason, and what to do.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for each in inner:
            each.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImproperlyConfigured(
            f"{error.filename or folder} cannot be made: {error.strerror}. Set DATA_DIR to a "
            "folder that the site's user may write to."
        ) from error


def forbidden_bits(*, group: bool) -> int:
    """The mode bits that no file in DATA_DIR may have."""
    return OTHERS if group else GROUP | OTHERS


def close(folder: Path, *, group: bool) -> None:
    """Remove other users' access to `folder` and the files in it; the group's too unless `group`.

    Folders in it need no change: they can be reached only through it.

    Raises:
        DataFolderIsOpen: with the reason, and what to do.
    """
    if os.name != "posix":
        return  # no modes
    bits = forbidden_bits(group=group)
    try:
        was = _mode(folder)
        if was & bits:
            with suppress(OSError):
                folder.chmod(was & ~bits)
            if _mode(folder) & bits:
                raise DataFolderIsOpen(_why_open(folder, bits))
            logger.warning("Others could reach DATA_DIR; it is now for the site's user alone")
            if was & stat.S_IWOTH:
                logger.warning("Others could also write to it: see that nothing is there but yours")
        for entry in os.scandir(folder):
            with suppress(FileNotFoundError):  # the database's journals come and go
                if entry.is_file(follow_symlinks=False) and _mode(entry) & bits:
                    with suppress(OSError):  # another user's file: the folder protects it
                        os.chmod(entry.path, _mode(entry) & ~bits)  # noqa: PTH101
    except OSError as error:
        raise DataFolderIsOpen(
            f"DATA_DIR, {folder}, cannot be checked: {error.strerror}."
        ) from error


def _mode(path: "Path | os.DirEntry[str]") -> int:
    return stat.S_IMODE(path.stat(follow_symlinks=False).st_mode)


def _why_open(folder: Path, bits: int) -> str:
    who = "other users of this machine" if _mode(folder) & OTHERS else "its group"
    text = f"{who} can reach DATA_DIR, {folder}, with the songs, sessions and password hashes in it"
    owner = folder.stat().st_uid
    if os.geteuid() not in (0, owner):
        return (
            f"{text}. It belongs to another user (uid {owner}), who has to mend that: "
            f"chmod {_mode(folder) & ~bits:o} {folder}. Or give it to the site's user, or set "
            "DATA_DIR to a folder of its own."
            + (" If its group is meant to, set GROUP_ACCESS=yes." if bits & GROUP else "")
        )
    return (
        f"{text}, and its file system keeps no modes. Mount it so that only the site's user can "
        "reach it, or set DATA_DIR to a folder on another one."
    )
