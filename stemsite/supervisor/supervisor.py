"""The loop that keeps services running: prints their output, reaps, starts again, stops.

All in the main thread, so that new processes are forked from the thread whose death the kernel
reports to them (prctl(2), PR_SET_PDEATHSIG). It never waits for those who read what is printed, nor
long for one who prints: signals and deaths come first. It also reaps orphans, as the first process
of a container has to.
"""

import logging
import os
import selectors
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO

from stemsite.supervisor.output import Output
from stemsite.supervisor.service import LINE_BYTES, Service

STOP_SECONDS = 8.0  # then what still runs is killed; containers get ten seconds
KILL_SECONDS = 3.0  # in which the killed are gone
CLEAR_SECONDS = 5.0  # for what a dead service leaves behind, before its next start
POLL_SECONDS = 0.1  # while processes are ending that are no children of this one
READ_BYTES = 1 << 14  # of each pipe between two looks at signals and deaths
PIPE_BYTES = 1 << 16  # that a pipe may hold when its process has ended
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


class Supervisor:
    """Runs services until it is told to stop, or one of them cannot be started at all."""

    def __init__(
        self,
        services: Sequence[Service],
        output: Output,
        record: Callable[[Mapping[str, int]], None] = lambda restarts: None,
    ) -> None:
        """record: called with the number of restarts of each service, whenever it changed."""
        self._services, self._output, self._record = services, output, record
        self._selector = selectors.DefaultSelector()
        self._unfinished: dict[int, bytes] = {}  # lines, by the pipe
        self._status = 0
        self._told = False  # to stop
        self._ends_by: float | None = None  # since it stops
        self._reason = ""

    def run(self) -> int:
        """Start all services and keep them running; returns the exit status."""
        self._listen()
        self._record({each.name: each.restarts for each in self._services})
        while not self._is_over():
            self._wait(self._patience())
            self._reap()
            if self._told and self._ends_by is None:
                self._stop()
            for service in self._services:
                self._advance(service)
            self._read()
        self._read()
        if self._reason:
            self._output.stopped(self._reason)
        return self._status

    def _listen(self) -> None:
        """Let signals wake the loop."""
        wakes, signals = os.pipe()
        for end in (wakes, signals):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(signals, warn_on_full_buffer=False)
        self._selector.register(wakes, selectors.EVENT_READ)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        for number in (getattr(signal, name) for name in SIGNALS):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a shell's background
                signal.signal(number, self._tell)

    def _tell(self, _number: int, _frame: object) -> None:
        self._told = True

    def _patience(self) -> float | None:
        """Seconds until something is to be done though nothing happens."""
        if self._ends_by is not None or not all(
            each.pid is not None or each.is_gone() for each in self._services
        ):
            return POLL_SECONDS
        waiting = [each.wakes_at for each in self._services if each.pid is None]
        return max(0.0, min(waiting) - time.monotonic()) if waiting else None

    def _wait(self, patience: float | None) -> None:
        """Wait until a signal comes, a process prints, or so many seconds have passed."""
        for key, _events in self._selector.select(patience):
            if key.data is None:  # a signal
                with suppress(BlockingIOError):
                    os.read(key.fd, 512)

    def _read(self, name: str = "") -> None:
        """Print what waits in the pipes, or in those of one service: of each no more than a bit."""
        for key, _events in self._selector.select(0.0):
            if key.data is not None and name in ("", key.data):
                self._print(key.data, key.fileobj)  # type: ignore[arg-type]

    def _print(self, name: str, pipe: IO[bytes]) -> None:
        """Print the next part of what is in a pipe, line by line."""
        fd = pipe.fileno()
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return
        *lines, rest = (self._unfinished.get(fd, b"") + data).split(b"\n")
        if rest and (not data or len(rest) >= LINE_BYTES):
            lines, rest = [*lines, rest], b""
        self._unfinished[fd] = rest
        for line in lines:
            self._output.line(name, line)
        if not data:
            del self._unfinished[fd]
            self._selector.unregister(pipe)
            pipe.close()

    def _reap(self) -> None:
        while True:
            try:
                pid, waited = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for service in self._services:
                if service.pid == pid:
                    self._ended(service, os.waitstatus_to_exitcode(waited))

    def _ended(self, service: Service, status: int) -> None:
        for _ in range(PIPE_BYTES // READ_BYTES + 1):  # first what it said at last
            self._read(service.name)
        ran = service.ended()
        how = f"{service.name} {_how(status)} after {_lasting(ran)}"
        if self._ends_by is not None or self._told:
            self._output.say(how)
        elif service.is_hopeless(status, ran):
            self._output.say(how, logging.ERROR)
            # Never 0: whoever started the site would take it for one that was told to stop.
            self._status = max(status, 1) if status >= 0 else 128 - status
            self._reason = (
                f"{service.name} could not be started, it {_how(status)}; its lines above say why."
            )
            self._stop()
        else:
            pause = service.start_again(ran)
            self._output.say(f"{how}; it is started again in {pause:.0f} s", logging.WARNING)
            self._record({each.name: each.restarts for each in self._services})
            service.signal(signal.SIGTERM)  # what it left behind

    def _advance(self, service: Service) -> None:
        """Do what is due: start a service, or kill what does not end."""
        now = time.monotonic()
        if self._ends_by is not None:
            if now > self._ends_by:
                service.signal(signal.SIGKILL)
        elif service.pid is None and now >= service.wakes_at:
            if service.is_gone():
                self._start(service)
            elif now > service.wakes_at + CLEAR_SECONDS:
                service.signal(signal.SIGKILL)

    def _start(self, service: Service) -> None:
        try:
            output = service.start()
        except OSError as error:
            pause = service.start_again(0.0)
            text = f"{service.name} cannot be started: {error.strerror}; next try in {pause:.0f} s"
            self._output.say(text, logging.ERROR)
            return
        self._selector.register(output, selectors.EVENT_READ, service.name)
        self._output.say(f"{service.name} started (pid {service.pid})")

    def _stop(self) -> None:
        self._ends_by = time.monotonic() + STOP_SECONDS
        for service in self._services:
            service.signal(signal.SIGTERM)

    def _is_over(self) -> bool:
        if self._ends_by is None:
            return False
        gone = all(each.pid is None and each.is_gone() for each in self._services)
        return gone or time.monotonic() > self._ends_by + KILL_SECONDS


def _how(status: int) -> str:
    """How a process ended, in words."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def _lasting(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.0f} min"
