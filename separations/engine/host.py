"""The site's end of an engine process: start it, hand it a song, hear from it, kill it.

No torch here.
"""

import contextlib
import errno
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import TextIO, cast

from separations.engine import memory
from separations.engine.messages import (
    Done,
    Failed,
    Message,
    Progress,
    Request,
    read_message,
    write_request,
)
from separations.faults import Fault

logger = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[2]
KILL_SECONDS = 10
# glibc: large arrays go back to the system when they are freed, not into heaps of every thread.
# Hundreds of MB less at the peak of htdemucs. In huge pages, where the system leaves that to its
# programs ("madvise"): else each array is paid for page by page, which is dear in virtual machines.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "1000000",
    "MALLOC_ARENA_MAX": "2",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
SPOILING = ("out_of_memory", "engine_error")  # after these a process is not used again


class EngineProcess:
    """One warm engine. Started at its first song, replaced by the next one after it was killed."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._kills_before = 0

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
        """Bytes of memory that the process holds now."""
        return memory.resident(self._child.pid) if self._child is not None else 0

    def run(self, request: Request, tick: float) -> Generator[Progress | Done | None]:
        """Work on `request`; yields each message, and None after `tick` seconds without one.

        Abandoning the iterator kills the process: there is no other way to stop a model.

        Raises:
            Fault: what the engine reports; out_of_memory or engine_died when the process ends on
                its own.
        """
        child, requests = self._start()
        self._kills_before = memory.out_of_memory_kills()
        finished = False
        try:
            requests.write(write_request(request) + "\n")
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
                    finished = message.code not in SPOILING
                    fault = Fault(message.code, **message.params)
                    fault.trace = message.trace
                    raise fault
                finished = isinstance(message, Done)
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
        child.kill()
        try:
            child.wait(KILL_SECONDS)
        except subprocess.TimeoutExpired:
            logger.error("Engine process %s cannot be killed", child.pid)
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what is left to write goes nowhere
                    pipe.close()

    def _start(self) -> tuple["subprocess.Popen[str]", TextIO]:
        """The running process and where its requests go."""
        child = self._child
        if child is None or child.poll() is not None:
            self.kill()
            try:
                child = self._child = subprocess.Popen(
                    [sys.executable, "-m", "separations.engine"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    encoding="utf-8",
                    cwd=ROOT,
                    env=MALLOC | os.environ,
                    start_new_session=True,  # a Ctrl-C in the terminal is the parent's to deal with
                )
            except OSError as error:
                code = "out_of_memory" if error.errno == errno.ENOMEM else "engine_died"
                raise Fault(code, status=-1) from error
            logger.info("Engine process %s started", child.pid)
            self._lines = queue.Queue()
            threading.Thread(target=_pump, args=(child, self._lines), daemon=True).start()
        return child, cast(TextIO, child.stdin)

    def _death(self, child: "subprocess.Popen[str]") -> Fault:
        try:
            status = child.wait(KILL_SECONDS)
        except subprocess.TimeoutExpired:
            status = 0
        logger.error("Engine process %s ended with status %s", child.pid, status)
        if status == -signal.SIGKILL and memory.out_of_memory_kills() > self._kills_before:
            return Fault("out_of_memory")
        return Fault("engine_died", status=status)


def _pump(child: "subprocess.Popen[str]", lines: "queue.Queue[str | None]") -> None:
    """Carry the engine's lines to the queue, None after the last."""
    if child.stdout is not None:
        try:
            for line in child.stdout:
                lines.put(line)
        except ValueError:  # closed by kill()
            pass
    lines.put(None)
