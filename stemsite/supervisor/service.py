"""A process of the Procfile: started in a session of its own, ended together with all that is left
of that session."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import IO

import psutil

from separations.audio.child_process import RestartPause, end_with_parent

FIRST_SECONDS = 30.0  # after which a first start has worked
FIRST_TRIES = 3  # of a process that signals end before that
LINE_BYTES = 1 << 16  # longer lines are printed in parts


class Service:
    """A process that is meant to run all the time."""

    def __init__(self, name: str, command: str, environment: Mapping[str, str]) -> None:
        """command: as a shell reads it. environment: all variables of the process."""
        self.name = name
        self.restarts = 0
        self.wakes_at = 0.0  # when it is to be started, in the time of `time.monotonic`
        self.pid: int | None = None
        self._command, self._environment = command, environment
        self._session: int | None = None  # of the process that ran last, until nothing is left
        self._began = 0.0
        self._pause = RestartPause()
        self._has_worked = False
        self._failed_starts = 0

    def start(self) -> IO[bytes]:
        """Start the process; returns its output.

        Raises:
            OSError: it cannot be started.
        """
        self._began = time.monotonic()
        process = subprocess.Popen(  # noqa: S602 - a Procfile holds lines for a shell
            self._command,
            shell=True,
            env=dict(self._environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a terminal's Ctrl-C does not reach it
            preexec_fn=_end_with_parent,  # the other thread holds no locks then: `writer`
        )
        # Reaped by the supervisor together with orphans; Popen must not wait for it.
        process.returncode = 0
        self.pid = self._session = process.pid
        assert process.stdout is not None  # noqa: S101 - for the type checker
        os.set_blocking(process.stdout.fileno(), False)
        return process.stdout

    def ended(self) -> float:
        """Record that the process was reaped; returns the seconds it ran."""
        self.pid = None
        return time.monotonic() - self._began

    def start_again(self, ran: float) -> float:
        """Plan the next start, after the process ran for so many seconds; returns the pause."""
        pause = self._pause.after(ran)
        self.wakes_at = time.monotonic() + pause
        self.restarts += 1
        return pause

    def is_hopeless(self, status: int, ran: float) -> bool:
        """Whether it never ran and another start would not help, as where a setting is wrong.

        Ends by a signal, or as if by one (status 0), may have causes outside; some are allowed.
        """
        if self._has_worked or ran >= FIRST_SECONDS:
            self._has_worked = True
            return False
        self._failed_starts += 1
        return status > 0 or self._failed_starts >= FIRST_TRIES

    def is_gone(self) -> bool:
        """Whether nothing of its session is left."""
        if self.pid is None and self._session is not None and not members(self._session):
            self._session = None
        return self._session is None

    def signal(self, number: int) -> None:
        """Send a signal to what is left of its session."""
        if self._session is not None:
            for each in members(self._session):
                with suppress(psutil.Error):
                    each.send_signal(number)


def members(session: int) -> list[psutil.Process]:
    """The living processes of a session."""
    found = []
    for pid in psutil.pids():
        with suppress(OSError, psutil.Error):
            if os.getsid(pid) == session:
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
    return found


def _end_with_parent() -> None:
    """In the new process, before it is the command: have it told when the supervisor dies."""
    end_with_parent(signal.SIGTERM)
