"""The secret key: from the environment, or made once and stored in DATA_DIR.

Importing the settings makes no key. It is made when the site starts, or at the first use.
"""

import os
import re
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import cast

from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import SimpleLazyObject
from filelock import FileLock, Timeout

SHORTEST = 50  # characters
LOCK_SECONDS = 10.0
# What stands in examples and is copied from them.
EXAMPLE_KEYS = re.compile("change.?(me|this|it)|secret|insecure|example|password|placeholder", re.I)


def strong(key: str, name: str) -> str:
    """Return `key`. Raises ImproperlyConfigured if it can be guessed, which opens every session."""
    repeated = key in (key + key)[1:-1]
    if len(key) < SHORTEST or len(set(key)) < 10 or repeated or EXAMPLE_KEYS.search(key):
        raise ImproperlyConfigured(
            f"{name} is weak: it must be at least 50 random characters. Leave it empty and one is "
            "made and kept in DATA_DIR, or make one: "
            'python3 -c "import secrets; print(secrets.token_urlsafe(64))"'
        )
    return key


def stored_key(path: Path) -> str:
    """The key in the file at `path`, read (and made, if there is none) when it is first used."""
    return cast(str, SimpleLazyObject(lambda: read_or_make(path)))


def read_or_make(path: Path) -> str:
    """Read the key in `path`; make one, readable by its owner alone, if there is none.

    Processes that start at the same moment agree on one key.

    Raises:
        ImproperlyConfigured: no key can be stored there, or what is there is none.
    """
    try:
        if not path.exists():
            _make(path)
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError, Timeout) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ImproperlyConfigured(
            f"The site's secret key cannot be kept in {path}: {reason}. Let the site's user write "
            "to DATA_DIR, or set SECRET_KEY."
        ) from error
    if len(key) < SHORTEST:
        raise ImproperlyConfigured(f"{path} holds no usable key. Delete it; a new one is made.")
    return key


def _make(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock"), timeout=LOCK_SECONDS, mode=0o600):
        if path.exists():
            return  # another process was first
        # Under another name until it is whole: readers take no lock.
        file, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(file, "w", encoding="utf-8") as new:
                new.write(secrets.token_urlsafe(64))
                new.flush()
                os.fsync(new.fileno())
            Path(name).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise
