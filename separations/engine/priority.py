"""Lower the CPU priority of engine processes, so that the web server answers quickly."""

import contextlib
import errno
import os
import time
from pathlib import Path

# A third of the CPU time of a competing process; all of it without competition.
NICE = int(os.environ.get("ENGINE_NICE", "").strip() or 5)  # the setting of that name
AUTOGROUP = Path("/proc/self/autogroup")
TRIES = 20
TRY_SECONDS = 0.11  # the kernel allows one change in a tenth of a second, system-wide


def lower_priority() -> None:
    """Lower this process's priority. Call it before starting threads: new ones inherit it.

    With `autogroup`, Linux divides the CPU between sessions before it does so between processes.
    An engine has a session of its own, so a process's niceness alone changes nothing there. (See
    "The autogroup feature" in sched(7).)
    """
    with contextlib.suppress(OSError):
        nice = os.nice(0)
        if nice < NICE:  # a child inherits the niceness, but not that of the session
            nice = os.nice(NICE - nice)
        for _ in range(TRIES):
            try:
                AUTOGROUP.write_text(str(nice))
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    raise  # not Linux, or without autogroup
            else:
                return
            time.sleep(TRY_SECONDS)
