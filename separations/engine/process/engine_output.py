"""What an engine process writes: its messages into a queue, its error output into the log."""

import os
import queue
import threading
from contextlib import suppress

from separations.audio.child_process import PythonProcess

ERROR_BYTES = 4000  # of the error output, kept for the operator
STDERR = 2


class ErrorOutput:
    """Passes a process's error output on to this process's, and keeps its end."""

    def __init__(self, child: PythonProcess) -> None:
        assert child.stderr is not None  # noqa: S101 - for the type checker
        # The file object would be locked by the reading thread, and could not be closed.
        self._pipe = os.dup(child.stderr.fileno())
        child.stderr.close()
        self._end = b""
        self._thread = threading.Thread(target=self._pass_on, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            os.close(self._pipe)
            raise

    def _pass_on(self) -> None:
        try:
            while output := os.read(self._pipe, 1 << 16):
                self._end = (self._end + output)[-ERROR_BYTES:]
                with suppress(OSError):  # nobody reads this process's own
                    _write_all(STDERR, output)
        finally:
            os.close(self._pipe)

    def last(self) -> str:
        """The last ERROR_BYTES, after the process's death."""
        self._thread.join(1.0)  # a process that it started may hold the pipe open
        return self._end.decode(errors="replace")


def _write_all(file: int, output: bytes) -> None:
    left = memoryview(output)
    while left:
        left = left[os.write(file, left) :]


def pump(child: PythonProcess, lines: "queue.Queue[bytes | None]") -> None:
    """Put the engine's lines into the queue, and None after the last."""
    if child.stdout is not None:
        try:
            for line in child.stdout:
                lines.put(line)
        except ValueError:  # closed by kill()
            pass
    lines.put(None)
