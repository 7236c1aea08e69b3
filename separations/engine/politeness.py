"""Leaves the CPUs to whoever answers people. No torch here."""

import contextlib
import errno
import os
import time
from pathlib import Path

# A third of the CPU time of whoever wants it too; all of it where nobody does.
NICE = int(os.environ.get("ENGINE_NICE", "").strip() or 5)  # the setting of that name
AUTOGROUP = Path("/proc/self/autogroup")
TRIES = 20
TRY_SECONDS = 0.11  # the kernel takes one such change in a tenth of a second, of all processes


def step_back() -> None:
    """Let other processes go first from now on. Before there are threads: it holds for new ones.

    Linux weighs sessions against each other before the processes in them where `autogroup` is on,
    and an engine has a session of its own: there a process's niceness alone would change nothing.
    (See "The autogroup feature" in sched(7).)
    """
    with contextlib.suppress(OSError):
        nice = os.nice(0)
        if nice < NICE:  # a child of one that stepped back has done so, but for its session
            nice = os.nice(NICE - nice)
        for _ in range(TRIES):
            try:
                AUTOGROUP.write_text(str(nice))
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    raise  # no Linux, or one without it
            else:
                return
            time.sleep(TRY_SECONDS)
