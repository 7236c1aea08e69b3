"""Run separations in an engine process: start it, send requests, read progress, kill it.

This module does not import torch.
"""

import logging
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from types import TracebackType
from typing import IO, cast

from separations.audio import child_process
from separations.audio.child_process import PythonProcess
from separations.engine import memory
from separations.engine.process.engine_output import ErrorOutput, pump
from separations.engine.process.engine_protocol import (
    PING,
    Done,
    Failed,
    Loaded,
    Message,
    Progress,
    Ready,
    Request,
    read_message,
    write_request,
)
from separations.errors.fault import Fault

logger = logging.getLogger(__name__)
# glibc: freed large arrays go back to the system, not into the heaps of each thread: hundreds of MB
# less at the peak of htdemucs. And huge pages, where the system lets programs choose ("madvise"):
# else each array causes a fault for every small page, which is slow in virtual machines.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "1000000",
    "MALLOC_ARENA_MAX": "2",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
# After these a process is replaced.
FATAL_FAULTS = ("out_of_memory", "engine_error", "engine_unavailable")
ANSWER_SECONDS = 60.0  # in which an engine loads torch, on a slow disk too
TICK_SECONDS = 0.25


class EngineProcess:
    """One warm engine process, started for its first song and after each kill for the next one."""

    def __init__(self) -> None:
        self._child: PythonProcess | None = None
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self._kills_before = 0
        self._began = self._rests_until = time.monotonic()
        self._pause = child_process.RestartPause()
        self._has_begun = False
        self._errors: ErrorOutput | None = None

    def __enter__(self) -> "EngineProcess":
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int | None:
        child = self._child  # another thread may end it now
        return child.pid if child is not None else None

    @property
    def resident(self) -> int:
        """Bytes of memory that the process uses now."""
        pid = self.pid
        return memory.resident(pid) if pid is not None else 0

    @property
    def rest(self) -> float:
        """Seconds that are better waited before the next `run`: the process died lately."""
        return max(0.0, self._rests_until - time.monotonic())

    def run(self, request: Request, tick: float) -> Generator[Progress | Done | None]:
        """Work on `request`: yield each message, and None after `tick` seconds without one.

        Closing the iterator kills the process, as there is no other way to stop a model.

        Raises:
            Fault: what the engine reports; out_of_memory or engine_died when the process ends on
                its own, engine_unavailable when it does so before torch is loaded.
        """
        message: Progress | Done | Loaded | None = None
        with closing(self._answers(request, tick)) as answers:
            for message in answers:
                if isinstance(message, Loaded):
                    raise Fault("engine_error", reason="no answer")
                yield message
        if not isinstance(message, Done):
            raise Fault("engine_died", status=-signal.SIGKILL)  # by `kill`

    def load(self, request: Request, tick: float, go_on: Callable[[], bool]) -> str:
        """Load the networks for the songs to come; returns what runs them, in words.

        Args:
            go_on: asked every `tick` seconds; if it says no, the process is killed and "" returned,
                as when `kill` is called meanwhile.

        Raises:
            Fault: as `run` does.
        """
        with closing(self._answers(replace(request, load_only=True), tick)) as answers:
            for message in answers:
                if isinstance(message, Loaded):
                    return message.engine
                if not go_on():
                    break
        return ""

    def _answers(self, request: Request, tick: float) -> Generator[Progress | Done | Loaded | None]:
        """The messages about `request`; they just end when another thread calls `kill`."""
        child, requests = self._start()
        self._kills_before = memory.out_of_memory_kills()
        finished = False
        try:
            requests.write(write_request(request).encode() + b"\n")
            requests.flush()
            while not finished:
                try:
                    line = self._lines.get(timeout=tick)
                except queue.Empty:
                    yield None
                    continue
                if line is None:
                    if self._was_killed(child):
                        return
                    raise self._death(child)
                message: Message = read_message(line)
                if isinstance(message, Ready):
                    self._has_begun = True
                    continue
                if isinstance(message, Failed):
                    finished = message.code not in FATAL_FAULTS
                    raise _fault_in(message)
                finished = isinstance(message, Done | Loaded)
                if finished:
                    self._pause.reset()
                yield message
        except BrokenPipeError:
            if not self._was_killed(child):
                raise self._death(child) from None
        except ValueError:  # of a pipe that `kill` closed
            if not self._was_killed(child):
                raise
        finally:
            if not finished:
                self.kill()

    def check(self, give_up: Callable[[], bool] = lambda: False) -> bool:
        """Start the process, if there is none, and have it load torch and answer.

        Returns:
            False when `give_up`, which is called now and then, said so first, or `kill` was called.

        Raises:
            Fault: engine_unavailable with the cause in its `trace`, or what the engine reports.
        """
        child, requests = self._start()
        until = time.monotonic() + ANSWER_SECONDS
        try:
            requests.write(PING.encode() + b"\n")
            requests.flush()
            while True:
                if give_up():
                    return False
                if time.monotonic() > until:
                    raise _unavailable(f"the engine did not answer for {ANSWER_SECONDS:.0f} s")
                try:
                    line = self._lines.get(timeout=TICK_SECONDS)
                except queue.Empty:
                    continue
                if line is None:
                    if self._was_killed(child):
                        return False
                    raise self._death(child)
                message = read_message(line)
                if isinstance(message, Failed):
                    raise _fault_in(message)
                self._has_begun = True
                return True
        except BrokenPipeError:
            if not self._was_killed(child):
                raise self._death(child) from None
        except ValueError:
            if not self._was_killed(child):
                raise
        return False

    def _was_killed(self, child: PythonProcess) -> bool:
        """Whether `child` ended by `kill`, which is no fault of it."""
        return self._child is not child

    def kill(self) -> None:
        """End the process at once, if there is one; its work is given up without a fault."""
        child, self._child = self._child, None
        if child is None:
            return
        child_process.kill(child)

    def _start(self) -> tuple[PythonProcess, IO[bytes]]:
        """The running process, started if necessary, and the pipe for requests."""
        child = self._child
        if child is None or child.poll() is not None:
            self.kill()
            try:
                child = self._start_child()
            except (OSError, RuntimeError, MemoryError) as error:  # the second: no more threads
                self.kill()
                self._rest_after(0.0)
                raise _unavailable(f"no process can be started: {error}", status=-1) from error
        return child, cast(IO[bytes], child.stdin)

    def _start_child(self) -> PythonProcess:
        child = child_process.start(
            "separations.engine", stderr=subprocess.PIPE, environment=MALLOC | os.environ
        )
        self._child, self._has_begun = child, False
        self._began = time.monotonic()
        logger.info("Engine process %s started", child.pid)
        self._lines = queue.Queue()
        threading.Thread(target=pump, args=(child, self._lines), daemon=True).start()
        self._errors = ErrorOutput(child)
        return child

    def _rest_after(self, ran: float) -> float:
        """Plan when the next process may start; returns the pause in seconds."""
        pause = self._pause.after(ran)
        self._rests_until = time.monotonic() + pause
        return pause

    def _death(self, child: PythonProcess) -> Fault:
        status = child_process.wait(child) or 0
        pause = self._rest_after(time.monotonic() - self._began)
        text = (
            "Engine process %s ended with status %s; the next one starts in %.0f s at the earliest"
        )
        logger.error(text, child.pid, status, pause)
        output = self._errors.last() if self._errors else ""
        # The end of it is what is kept, and a crash writes much.
        cause = f"{output}\nthe engine ended with {child_process.ending(status)}"
        if status == -signal.SIGKILL and memory.out_of_memory_kills() > self._kills_before:
            fault = Fault("out_of_memory")
        elif not self._has_begun:
            return _unavailable(cause, status=status)
        else:
            fault = Fault("engine_died", status=status)
        fault.trace = cause
        return fault


def _unavailable(cause: str, **params: object) -> Fault:
    fault = Fault("engine_unavailable", **params)
    fault.trace = cause
    return fault


def _fault_in(message: Failed) -> Fault:
    fault = Fault(message.code, **message.params)
    fault.trace = message.trace
    return fault
