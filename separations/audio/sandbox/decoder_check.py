"""Whether songs can be decoded here: by what decoders did, and by a tiny song now and then."""

import logging
import math
import os
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from separations.errors.fault import Fault

logger = logging.getLogger(__name__)
CHECK_SECONDS = 300.0  # after which a good result is checked again
RETRY_SECONDS = 10.0  # the same after a failure
RATE, FRAMES = 8000, 1600  # of the tiny song: a fifth of a second


class DecoderCheck:
    """Remembers whether the last decoder of this process could begin, and why it could not.

    Args:
        read_tiny_song: decodes a tiny song, or raises Fault or OSError.
    """

    def __init__(self, read_tiny_song: Callable[[], None]) -> None:
        self._read = read_tiny_song
        self._cause, self._at = "", -math.inf
        self._state, self._running = threading.Lock(), threading.Lock()

    @property
    def cause(self) -> str:
        """Why songs cannot be decoded, for the operator; "" while they can."""
        return self._cause

    def record(self, cause: str) -> None:
        """Record that a decoder began ("") or why it did not. A change is logged once."""
        with self._state:
            before, self._cause, self._at = self._cause, cause, time.monotonic()
        if cause and not before:
            logger.error("Songs cannot be read: %s", cause)
        elif before and not cause:
            logger.info("Songs can be read again")

    def is_due(self) -> bool:
        """Whether the last result is old: CHECK_SECONDS, or RETRY_SECONDS after a failure."""
        return self._is_older_than(RETRY_SECONDS if self._cause else CHECK_SECONDS)

    def check(self, max_age: float = 0.0) -> str:
        """Decode the tiny song, unless the last result is at most `max_age` seconds old, or another
        thread is at it. Returns `cause`."""
        if self._is_older_than(max_age) and self._running.acquire(blocking=False):
            try:
                self._read()
            except Fault as fault:
                self.record(fault.trace or str(fault))
            except (OSError, RuntimeError, MemoryError) as error:  # no room, or no thread, for it
                self.record(str(error))
            else:
                self.record("")
            finally:
                self._running.release()
        return self._cause

    def check_soon(self) -> str:
        """`check` in a thread if it is due. Returns `cause` as known now."""
        if self.is_due() and not self._running.locked():
            try:
                threading.Thread(target=self.check, daemon=True).start()
            except RuntimeError as error:  # no more threads
                self.record(str(error))
        return self._cause

    def require(self) -> None:
        """Raises Fault (decoder_unavailable) at once while songs cannot be decoded."""
        if self._cause and self.check(RETRY_SECONDS):
            raise unavailable(self._cause)

    def _is_older_than(self, seconds: float) -> bool:
        return time.monotonic() - self._at >= seconds


def unavailable(cause: str, **params: object) -> Fault:
    """The fault of a decoder that does not begin, with the cause for the operator."""
    fault = Fault("decoder_unavailable", wait=60, **params)
    fault.trace = cause
    return fault


@contextmanager
def tiny_song() -> Iterator[IO[bytes]]:
    """An open WAV of FRAMES samples, in memory where the system has such files (Linux)."""
    in_memory = hasattr(os, "memfd_create")  # so that a full disk is no broken decoder
    with (
        os.fdopen(os.memfd_create("song"), "w+b") if in_memory else tempfile.TemporaryFile()
    ) as file:
        file.write(_wav())
        file.seek(0)
        yield file


def _wav() -> bytes:
    """A tone of 440 Hz: 16 bits, mono."""
    levels = (round(8000 * math.sin(math.tau * 440 * n / RATE)) for n in range(FRAMES))
    samples = struct.pack(f"<{FRAMES}h", *levels)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    body = b"WAVE" + form + struct.pack("<4sI", b"data", len(samples)) + samples
    return struct.pack("<4sI", b"RIFF", len(body)) + body
