"""Run separations in an engine process: start it, send requests, read progress, kill it.

This module does not import torch.
"""

import errno
import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Generator
from types import TracebackType
from typing import IO, cast

from separations.audio import child_process
from separations.audio.child_process import PythonProcess
from separations.engine import memory
from separations.engine.process.engine_protocol import (
    Done,
    Failed,
    Message,
    Progress,
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
FATAL_FAULTS = ("out_of_memory", "engine_error")  # after these a process is replaced


class EngineProcess:
    """One warm engine process, started for its first song and after each kill for the next one."""

    def __init__(self) -> None:
        self._child: PythonProcess | None = None
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self._kills_before = 0
        self._began = self._rests_until = time.monotonic()
        self._pause = child_process.RestartPause()

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
        return self._child.pid if self._child is not None else None

    @property
    def resident(self) -> int:
        """Bytes of memory that the process uses now."""
        return memory.resident(self._child.pid) if self._child is not None else 0

    @property
    def rest(self) -> float:
        """Seconds that are better waited before the next `run`: the process died lately."""
        return max(0.0, self._rests_until - time.monotonic())

    def run(self, request: Request, tick: float) -> Generator[Progress | Done | None]:
        """Work on `request`: yield each message, and None after `tick` seconds without one.

        Closing the iterator kills the process, as there is no other way to stop a model.

        Raises:
            Fault: what the engine reports; out_of_memory or engine_died when the process ends on
                its own.
        """
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
                    raise self._death(child)
                message: Message = read_message(line)
                if isinstance(message, Failed):
                    finished = message.code not in FATAL_FAULTS
                    fault = Fault(message.code, **message.params)
                    fault.trace = message.trace
                    raise fault
                finished = isinstance(message, Done)
                if finished:
                    self._pause.reset()
                yield message
        except BrokenPipeError:
            raise self._death(child) from None
        finally:
            if not finished:
                self.kill()

    def kill(self) -> None:
        """End the process at once, if there is one."""
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
                environment = MALLOC | os.environ
                child = child_process.start("separations.engine", environment=environment)
                self._child = child
            except OSError as error:
                self._rest_after(0.0)
                code = "out_of_memory" if error.errno == errno.ENOMEM else "engine_died"
                raise Fault(code, status=-1) from error
            self._began = time.monotonic()
            logger.info("Engine process %s started", child.pid)
            self._lines = queue.Queue()
            threading.Thread(target=_pump, args=(child, self._lines), daemon=True).start()
        return child, cast(IO[bytes], child.stdin)

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
        if status == -signal.SIGKILL and memory.out_of_memory_kills() > self._kills_before:
            return Fault("out_of_memory")
        return Fault("engine_died", status=status)


def _pump(child: PythonProcess, lines: "queue.Queue[bytes | None]") -> None:
    """Put the engine's lines into the queue, and None after the last."""
    if child.stdout is not None:
        try:
            for line in child.stdout:
                lines.put(line)
        except ValueError:  # closed by kill()
            pass
    lines.put(None)
