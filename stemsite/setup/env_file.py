"""Read `.env`: settings as lines of NAME=value. Variables that are set win over it."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

NAME = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")


def read(folder: Path) -> dict[str, str]:
    """The variables in a folder's `.env`, quoted as for a shell; none where there is no such file.

    Raises:
        ValueError: with the line that cannot be read.
    """
    try:
        text = (folder / ".env").read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ValueError(f".env cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ValueError(".env cannot be read: it is not in UTF-8.") from None
    found = {}
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            name, *rest = list(shlex.shlex(line, posix=True)) or [""]
        except ValueError as error:
            raise ValueError(f".env, line {number}: {error}.".replace("..", ".")) from None
        if NAME.fullmatch(name) and len(rest) > 1 and rest[0] == "=":
            found[name] = "".join(rest[1:]).replace(r"\n", "\n").replace(r"\t", "\t")
    return found


def load(folder: Path) -> None:
    """Set the variables in a folder's `.env` that are not set, or empty, in this process."""
    for name, value in read(folder).items():
        if not os.environ.get(name, "").strip():
            os.environ[name] = value
