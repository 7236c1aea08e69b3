"""One set-up at a time in a checkout. Its pip holds the lock, too, when the set-up is killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from stemsite.setup import paths
from stemsite.setup.steps import children_keep, say

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Wait until no other set-up, and nothing that one started, is at work in this checkout.

    Without a lock where the checkout cannot be written to, as nothing is set up there then; and
    where its file system has no locks.
    """
    if fcntl is None:
        yield
        return
    try:
        file = os.open(paths.ROOT / ".setup.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:
        yield
        return
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if isinstance(error, BlockingIOError):
                say("Waiting for another set-up that is at work here")
                fcntl.flock(file, fcntl.LOCK_EX)
            else:
                why = error.strerror
                say(f"This folder cannot be locked ({why}): do not set it up twice at once")
        # What is started holds it too: killed, this process may leave a pip that still installs.
        with children_keep(file):
            yield
    finally:
        os.close(file)
