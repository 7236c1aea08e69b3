"""The site's end of the sandbox: start a process for one song, hear from it, believe nothing.

A decoder with a hole in it may be made to say anything, so what comes is checked like an upload:
lengths, ranges, texts, and how much of it there is.
"""

import json
import logging
import math
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from separations.audio.accepted import DECODERS, DEMUXERS, HIGHEST_RATE, LOWEST_RATE, MOST_CHANNELS
from separations.audio.info import CHANNELS, AudioInfo
from separations.audio.wire import HEAD, MOST_SAMPLES, MOST_TEXT, SAMPLES, TEXT, Block
from separations.faults import Fault

logger = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[2]
# Most songs take a second or two. What takes all of this was made to: long, at a high sample rate,
# in many channels.
CPU_SECONDS, SECONDS_PER_CPU_SECOND = 30, 20
LONGEST = 24 * 3600  # seconds of a song; limits grow no further
WALL_FACTOR = 2.0  # of the CPU time, on a machine that has other things to do
SLACK_SECONDS = 1.0
END_SECONDS = 5.0
COMPLAINT_BYTES = 2000
# What a child is told of its surroundings: how to find its libraries, and no secrets.
PASSED = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "TMPDIR")
# Thread pools reserve address space by the core, which the child's limit would then count.
SET = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}
# What may be wrong with a song, and the values that go with it.
FAULTS = {
    "empty": (),
    "not_audio": (),
    "no_audio": (),
    "absurd_rate": ("rate", "lowest", "highest"),
    "too_many_channels": ("channels", "most"),
    "too_long": ("max_minutes",),
    "too_short": ("min_seconds",),
    "truncated": ("read",),
    "not_finite": (),
    "damaged": (),
    "rate_changes": (),
    "channels_change": (),
}
PATIENCE_SECONDS = 30.0
OWN_PATIENCE_SECONDS = 90.0  # of who waits for songs of their own: a class behind one address
_told = set[str]()  # what was found missing and said once


class Decoders:
    """Decoders of uploads side by side; each takes a core and up to a gigabyte.

    One client runs half of them at most, where there are several, so that songs which take all the
    time they are given do not stop others.
    """

    def __init__(self, most: int) -> None:
        self._most, self._share = most, max(1, most // 2)
        self._held: Counter[str] = Counter()
        self._free = threading.Condition()

    @contextmanager
    def one(self, client: str) -> Iterator[None]:
        """A decoder for a client, "" for nobody in particular.

        Raises:
            Fault: too_many_at_once when this client has its share, busy when all are taken.
        """
        with self._free:
            if not self._free.wait_for(lambda: self._within(client), OWN_PATIENCE_SECONDS):
                raise Fault("too_many_at_once", wait=10)
            if not self._free.wait_for(lambda: self._has_one(client), PATIENCE_SECONDS):
                raise Fault("busy" if self._within(client) else "too_many_at_once", wait=10)
            self._held[client] += 1
        try:
            yield
        finally:
            with self._free:
                self._held[client] -= 1
                if not self._held[client]:
                    del self._held[client]
                self._free.notify_all()

    def _has_one(self, client: str) -> bool:
        return self._within(client) and self._held.total() < self._most

    def _within(self, client: str) -> bool:
        return not client or self._held[client] < self._share


decoders = Decoders(os.cpu_count() or 1)


def probe_isolated(
    path: Path, max_seconds: float, client: str = "", spent: Callable[[float], None] | None = None
) -> AudioInfo:
    """`separations.audio.probe.probe` in the sandbox.

    Args:
        client: who sent the song.
        spent: told how many seconds a decoder was held, whatever came of it.

    Raises:
        Fault: what `probe` raises; unreadable when the process dies, too_slow when it takes too
            long, busy or too_many_at_once when it has to wait for a decoder too long.
    """
    began = None
    try:
        with decoders.one(client):
            began = time.monotonic()
            with Child(path, "probe", max_seconds) as child:
                return _info(child.hear().get("info"), max_seconds)
    finally:
        if spent is not None and began is not None:
            spent(time.monotonic() - began)


class Song:
    """A song that is being decoded: its sample rate, and its samples once."""

    def __init__(self, child: "Child", rate: int, max_seconds: float) -> None:
        self.rate, self._child = rate, child
        self._most = (max_seconds + SLACK_SECONDS) * rate

    def blocks(self) -> Iterator[Block]:
        """Blocks of shape (2, samples) at the song's own rate."""
        frames = 0
        while (block := self._child.hear_samples()) is not None:
            frames += block.shape[1]
            if frames > self._most:
                raise _nonsense("too many samples")
            yield block


@contextmanager
def open_song(path: Path, max_seconds: float = math.inf) -> Iterator[Song]:
    """Decode the song at `path` in the sandbox. Left early, the process is ended.

    Raises:
        Fault: what `separations.audio.source` raises; unreadable and too_slow as above, also when
            there is more than `max_seconds`.
    """
    with Child(path, "decode", max_seconds) as child:
        rate = child.hear().get("rate", 0)
        if not _is_whole(rate, LOWEST_RATE, HIGHEST_RATE):
            raise _nonsense("rate")
        yield Song(child, rate, max_seconds)


class Child:
    """A process for one song, and what it says. Ended at the latest when the context is."""

    module = "separations.audio.child"

    def __init__(self, path: Path, task: str, max_seconds: float = math.inf) -> None:
        cpu = math.ceil(CPU_SECONDS + min(max_seconds, LONGEST) / SECONDS_PER_CPU_SECOND)
        self._path, self._left = path, cpu * WALL_FACTOR
        self._command = ["-m", self.module, task, str(max_seconds), str(cpu)]
        self._complaint = b""

    def __enter__(self) -> "Child":
        environment = {name: os.environ[name] for name in PASSED if name in os.environ}
        with self._path.open("rb") as song:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, *self._command],
                    stdin=song,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=environment | SET,
                    cwd=ROOT,
                    start_new_session=True,  # a group of its own, to be killed whole
                )
            except OSError as error:
                logger.warning("Reading a song could not begin: %s", error.strerror)
                raise Fault("unreadable") from error
        assert self._process.stdout is not None  # noqa: S101 (for the type checker)
        assert self._process.stderr is not None  # noqa: S101
        self._answer = self._process.stdout.fileno()
        self._complaints = self._process.stderr.fileno()
        self._ready = selectors.DefaultSelector()
        for pipe in (self._answer, self._complaints):
            os.set_blocking(pipe, False)
            self._ready.register(pipe, selectors.EVENT_READ)
        try:
            missing = self.hear().get("missing")
            if not isinstance(missing, list):
                raise _nonsense("greeting")
            _tell(missing)
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.end()

    def end(self) -> None:
        """Kill the process and what it may have started, and forget it."""
        if self._process.returncode is None:  # else its number may be another's by now
            with suppress(ProcessLookupError, PermissionError):  # macOS says the latter of zombies
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._ready.close()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def hear(self) -> dict[str, Any]:
        """The next message, a JSON object. A fault in it is raised."""
        kind, content = self._message()
        if kind != TEXT:
            raise _nonsense("samples")
        return _object(content)

    def hear_samples(self) -> Block | None:
        """The next block of shape (2, samples); None at the end. A fault is raised."""
        kind, content = self._message()
        if kind == SAMPLES:
            return np.frombuffer(content, np.float32).reshape(CHANNELS, -1)
        if _object(content) != {"end": True}:
            raise _nonsense("end")
        return None

    def _message(self) -> tuple[bytes, bytearray]:
        kind, size = HEAD.unpack(self._read(HEAD.size))
        if kind == TEXT and size <= MOST_TEXT:
            return kind, self._read(size)
        frame = CHANNELS * 4
        if kind == SAMPLES and size % frame == 0 and 0 < size <= frame * MOST_SAMPLES:
            return kind, self._read(size)
        raise _nonsense("message")

    def _read(self, size: int) -> bytearray:
        content = bytearray(size)
        got = 0
        while got < size:
            self._wait()
            with suppress(BlockingIOError):
                count = os.readv(self._answer, [memoryview(content)[got:]])
                if count == 0:
                    raise self._death()
                got += count
        return content

    def _wait(self) -> None:
        """Until there is something to read; what was complained of meanwhile is kept."""
        while True:
            before = time.monotonic()
            ready = {key.fd for key, _events in self._ready.select(max(0.0, self._left))}
            self._left -= time.monotonic() - before
            if self._complaints in ready:
                said = os.read(self._complaints, 1 << 16)
                self._complaint = (self._complaint + said)[-COMPLAINT_BYTES:]
                if not said:
                    self._ready.unregister(self._complaints)
            if self._answer in ready:
                return
            if self._left <= 0:
                logger.warning("Reading a song took too long")
                raise Fault("too_slow")

    def _death(self) -> Fault:
        try:
            status = self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            return _nonsense("silence")
        with suppress(OSError):
            self._complaint += os.read(self._complaints, 1 << 16)
        # A stranger may have written it: on one line, with nothing in it that a terminal obeys.
        complaint = ascii(self._complaint[-COMPLAINT_BYTES:].decode(errors="replace"))
        logger.warning("Reading a song ended with status %s: %s", status, complaint)
        return Fault("too_slow" if status == -signal.SIGXCPU else "unreadable")


def _tell(missing: list[Any]) -> None:
    """Say once what the sandbox lacks on this machine."""
    for layer in missing:
        if isinstance(layer, str) and layer not in _told and len(_told) < 10:
            _told.add(layer)
            logger.warning("Songs are read without %s: not to be had here", ascii(layer[:40]))


def _nonsense(what: str) -> Fault:
    logger.warning("Reading a song gave an answer that cannot be: %s", what)
    return Fault("unreadable")


def _object(content: bytearray) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _nonsense("text") from error
    if not isinstance(found, dict):
        raise _nonsense("text")
    if "fault" in found:
        raise _fault(found)
    return found


def _fault(found: dict[str, Any]) -> Fault:
    code, params = found["fault"], found.get("params")
    if not isinstance(code, str) or code not in FAULTS or not isinstance(params, dict):
        return _nonsense("fault")
    if set(params) != set(FAULTS[code]):
        return _nonsense("fault")
    if not all(re.fullmatch(r"[0-9.e+-]{1,20}", str(value)) for value in params.values()):
        return _nonsense("fault")
    return Fault(code, **params)


def _info(found: Any, max_seconds: float) -> AudioInfo:
    """What a child found out, if it can be true."""
    try:
        info = AudioInfo(**found)
    except TypeError as error:
        raise _nonsense("facts") from error
    holds = (
        info.container in DEMUXERS
        and info.codec in DECODERS
        and _is_whole(info.sample_rate, LOWEST_RATE, HIGHEST_RATE)
        and _is_whole(info.channels, 1, MOST_CHANNELS)
        and _is_whole(info.frames, 1, min(max_seconds, 1e9) * info.sample_rate)
        and all(_is_line(text) for text in (info.title, info.artist))
        and isinstance(info.samples_sha256, str)
        and re.fullmatch(r"[0-9a-f]{64}", info.samples_sha256)
    )
    if not holds:
        raise _nonsense("facts")
    return info


def _is_whole(value: Any, lowest: float, highest: float) -> bool:
    return type(value) is int and lowest <= value <= highest


def _is_line(text: Any) -> bool:
    return isinstance(text, str) and len(text) <= 200 and text.isprintable()
