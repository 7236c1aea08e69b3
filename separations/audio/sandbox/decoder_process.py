"""Decode a song in a sandboxed process, and check everything that the process answers.

A song may exploit a decoder and make it answer anything. So its answers are checked like an upload:
lengths, ranges, texts, and how much there is.
"""

import logging
import math
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from separations.audio import child_process
from separations.audio.decoding.allowed_codecs import HIGHEST_RATE, LOWEST_RATE
from separations.audio.decoding.decoder_protocol import (
    COVER,
    HEAD,
    MOST_SAMPLES,
    MOST_TEXT,
    SAMPLES,
    TEXT,
    Block,
)
from separations.audio.info import CHANNELS, MOST_COVER, AudioInfo
from separations.audio.level_limits import FOLDED, HIGHEST_LEVEL, check_song
from separations.audio.sandbox.answers import implausible, is_whole, read_info, read_object
from separations.audio.sandbox.decoder_check import FRAMES, DecoderCheck, tiny_song, unavailable
from separations.audio.sandbox.decoder_slots import DecoderSlots
from separations.errors.fault import Fault

logger = logging.getLogger(__name__)
# Most songs need a second or two. One that needs all of this was made for it: long, with a high
# sample rate and many channels.
CPU_SECONDS, SECONDS_PER_CPU_SECOND = 15, 40
LONGEST = 24 * 3600  # seconds of a song; the limit does not grow beyond
WALL_FACTOR = 2.0  # wall time to CPU time, on a busy machine
SLACK_SECONDS = 1.0
BEGIN_SECONDS = 30.0  # to load the libraries, from a slow disk too; no song's fault
END_SECONDS = 5.0
ERROR_BYTES = 2000
# Nothing in the sandbox sends these: they come from the kernel that is out of memory, from whoever
# stops the service, or from an operator.
FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
AGAIN_WITHIN = 10.0  # seconds that a decoder may have taken to be tried once more
OF_THE_MACHINE = ("decoder_unavailable", "decoder_died")
# Faults that a broken installation may cause as well as a song.
DOUBTFUL, TRUSTED_SECONDS = ("unreadable", "too_much_memory"), 60.0
# Of the environment: how to find libraries, and no secrets.
PASSED = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "TMPDIR")
# Thread pools reserve address space for each core, which counts against the process's limit.
SET = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}
_reported = set[str]()  # missing sandbox layers that are logged already


decoder_slots = DecoderSlots()
death_listeners: list[Callable[[Fault], None]] = []  # called when the decoder of an upload died


def probe_isolated(
    path: Path, max_seconds: float, client: str = "", spent: Callable[[float], None] | None = None
) -> AudioInfo:
    """`separations.audio.decoding.probe.probe` in the sandbox.

    Args:
        client: who sent the song, as a hash.
        spent: called with the seconds that a decoder was held, also after a failure.

    Raises:
        Fault: what `probe` raises; unreadable when the song makes the process crash, too_slow when
            it takes too long, decoder_unavailable when it does not begin and decoder_died when
            something else killed it, both twice; busy or too_many_at_once after too long a wait for
            a decoder.
    """
    began = None
    try:
        with decoder_slots.for_upload(client):
            began = time.monotonic()
            return _probe_once_more(path, max_seconds)
    finally:
        if spent is not None and began is not None:
            spent(time.monotonic() - began)


def _probe_once_more(path: Path, max_seconds: float) -> AudioInfo:
    """Probe a song, once more if the first decoder failed for a reason outside the song."""
    began = time.monotonic()
    try:
        return _probe(path, max_seconds)
    except Fault as fault:
        if fault.code in DOUBTFUL and (cause := decoder_check.check(TRUSTED_SECONDS)):
            raise unavailable(cause) from fault
        if fault.code not in OF_THE_MACHINE or time.monotonic() - began > AGAIN_WITHIN:
            raise
    return _probe(path, max_seconds)


def _probe(song: Path | IO[bytes], max_seconds: float) -> AudioInfo:
    try:
        with DecoderProcess(song, "probe", max_seconds) as child:
            info = child.read_info(max_seconds)
    except Fault as fault:
        if fault.code == "decoder_unavailable":
            decoder_check.record(fault.trace)
        if "status" in fault.params:
            for listener in death_listeners:
                listener(fault)
        raise
    decoder_check.record("")
    return info


def _read_tiny_song() -> None:
    with tiny_song() as song, DecoderProcess(song, "probe", 1.0) as child:
        if child.read_info(1.0).frames != FRAMES:
            raise implausible("length of the tiny song")


decoder_check = DecoderCheck(_read_tiny_song)


class Song:
    """A song that is being decoded: its sample rate, and its samples once."""

    def __init__(self, child: "DecoderProcess", rate: int, max_seconds: float) -> None:
        self.rate, self._child = rate, child
        self._most = (max_seconds + SLACK_SECONDS) * rate

    def blocks(self) -> Iterator[Block]:
        """Blocks of shape (2, samples) at the song's own rate."""
        frames = 0
        while (block := self._child.read_samples()) is not None:
            frames += block.shape[1]
            if frames > self._most:
                raise implausible("too many samples")
            check_song(block, HIGHEST_LEVEL * FOLDED)  # so that all that is computed stays finite
            yield block


@contextmanager
def open_song(path: Path, max_seconds: float = math.inf) -> Iterator[Song]:
    """Decode the song at `path` in the sandbox, in one of the engines' slots.

    Leaving the context ends the process.

    Raises:
        Fault: what `audio.decoding.source` raises; not_finite and too_loud; unreadable for answers
            that cannot be, also when there is more than `max_seconds`; too_slow; decoder_died when
            the process dies in any way, since the song was readable when it came in;
            decoder_unavailable.
    """
    with decoder_slots.for_engine(), ExitStack() as stack:
        try:
            song = _open(stack, path, max_seconds)
        except Fault as fault:
            if fault.code not in OF_THE_MACHINE:
                raise
            song = _open(stack, path, max_seconds)  # once more, as nothing was read yet
        yield song


def _open(stack: ExitStack, path: Path, max_seconds: float) -> Song:
    child = stack.enter_context(DecoderProcess(path, "decode", max_seconds))
    rate = child.read_message().get("rate", 0)
    if not is_whole(rate, LOWEST_RATE, HIGHEST_RATE):
        raise implausible("rate")
    return Song(child, rate, max_seconds)


class DecoderProcess:
    """A sandboxed process for one song, and its answers. Leaving the context kills it."""

    module = "separations.audio.sandbox.worker"

    def __init__(self, song: Path | IO[bytes], task: str, max_seconds: float = math.inf) -> None:
        cpu = math.ceil(CPU_SECONDS + min(max_seconds, LONGEST) / SECONDS_PER_CPU_SECOND)
        self._song, self._left = song, cpu * WALL_FACTOR
        self._arguments = (task, str(max_seconds), str(cpu))
        self._was_readable = task == "decode"  # only songs that were probed are
        self._has_begun = False
        self._error_output = b""

    def __enter__(self) -> "DecoderProcess":
        environment = {name: os.environ[name] for name in PASSED if name in os.environ}
        given = self._song
        with given.open("rb") if isinstance(given, Path) else nullcontext(given) as song:
            selector = None
            try:
                # Before the process, which nobody would end for lack of open files.
                selector = self._ready = selectors.DefaultSelector()
                self._process = child_process.start(
                    self.module,
                    *self._arguments,
                    stdin=song,
                    stderr=subprocess.PIPE,
                    environment=environment | SET,
                )
            except OSError as error:
                if selector is not None:
                    selector.close()
                raise unavailable(f"no process can be started: {error}", status=-1) from error
        assert self._process.stdout is not None  # noqa: S101 (for the type checker)
        assert self._process.stderr is not None  # noqa: S101
        self._answer = self._process.stdout.fileno()
        self._error_pipe = self._process.stderr.fileno()
        try:
            for pipe in (self._answer, self._error_pipe):
                os.set_blocking(pipe, False)
                self._ready.register(pipe, selectors.EVENT_READ)
            self._begin()
        except BaseException:
            self.end()
            raise
        return self

    def _begin(self) -> None:
        """Wait for the greeting. It comes before the song is touched, so what goes wrong until then
        is the site's fault."""
        left, self._left = self._left, BEGIN_SECONDS
        try:
            missing = self.read_message().get("missing")
            if not isinstance(missing, list):
                raise implausible("greeting")
        except Fault as fault:
            if fault.code == "decoder_unavailable":
                raise
            cause = f"the decoder does not begin ({fault.code}): {self._last_output()}"
            raise unavailable(cause, status=0) from fault
        self._has_begun, self._left = True, left
        _report_missing(missing)

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.end()

    def end(self) -> None:
        """Kill the process and all that it started."""
        self._ready.close()
        child_process.kill(self._process)

    def read_message(self) -> dict[str, Any]:
        """The next message, a JSON object. A fault in it is raised."""
        kind, content = self._message()
        if kind != TEXT:
            raise implausible("samples")
        return self._object(content)

    def read_samples(self) -> Block | None:
        """The next block of shape (2, samples); None at the end. A fault is raised."""
        kind, content = self._message()
        if kind == SAMPLES:
            return np.frombuffer(content, np.float32).reshape(CHANNELS, -1)
        if self._object(content) != {"end": True}:
            raise implausible("end")
        return None

    def _object(self, content: bytearray) -> dict[str, Any]:
        try:
            return read_object(content)
        except Fault as fault:
            if fault.code == "unreadable":
                self._read_error_output()
                fault.params["status"] = 1  # so that it is counted
                fault.trace = f"the decoder failed: {self._last_output()}"
                logger.warning("Reading a song failed, %s", fault.trace)
            raise

    def read_info(self, max_seconds: float) -> AudioInfo:
        """The facts about a song, and its cover. A fault is raised."""
        found = self.read_message()
        return read_info(found.get("info"), self._cover(found.get("cover")), max_seconds)

    def _cover(self, size: Any) -> bytes:
        """The cover of `size` bytes, which is empty where there is none."""
        if not is_whole(size, 0, MOST_COVER):
            raise implausible("size of a cover")
        if size == 0:
            return b""
        if HEAD.unpack(self._read(HEAD.size)) != (COVER, size):
            raise implausible("cover")
        return bytes(self._read(size))

    def _message(self) -> tuple[bytes, bytearray]:
        kind, size = HEAD.unpack(self._read(HEAD.size))
        if kind == TEXT and size <= MOST_TEXT:
            return kind, self._read(size)
        frame = CHANNELS * 4
        if kind == SAMPLES and size % frame == 0 and 0 < size <= frame * MOST_SAMPLES:
            return kind, self._read(size)
        raise implausible("message")

    def _read(self, size: int) -> bytearray:
        content = bytearray(size)
        got = 0
        while got < size:
            self._wait()
            with suppress(BlockingIOError):
                count = os.readv(self._answer, [memoryview(content)[got:]])
                if count == 0:
                    raise self._fault_at_end()
                got += count
        return content

    def _wait(self) -> None:
        """Block until there is an answer to read; collect the error output meanwhile."""
        before = time.monotonic()
        while True:
            ready = {key.fd for key, _events in self._ready.select(max(0.0, self._left))}
            now = time.monotonic()
            self._left -= now - before  # with the time that reading error output takes
            before = now
            if self._error_pipe in ready:
                output = os.read(self._error_pipe, 1 << 16)
                self._error_output = (self._error_output + output)[-ERROR_BYTES:]
                if not output:
                    self._ready.unregister(self._error_pipe)
            if self._answer in ready:
                return
            if self._left <= 0:
                logger.warning("Reading a song took too long")
                raise Fault("too_slow")

    def _fault_at_end(self) -> Fault:
        status = child_process.wait(self._process, END_SECONDS)
        self._read_error_output()
        cause = f"the decoder ended with {child_process.ending(status)}: {self._last_output()}"
        if not self._has_begun:
            return unavailable(cause, status=status or 0)
        if status is None:
            return implausible("silence")
        logger.warning("Reading a song failed, %s", cause)
        code = self._code_of(status)
        fault = Fault(code, status=status, **({"wait": 10} if code == "decoder_died" else {}))
        fault.trace = cause
        return fault

    def _read_error_output(self) -> None:
        with suppress(OSError):
            self._error_output += os.read(self._error_pipe, 1 << 16)

    def _last_output(self) -> str:
        """The end of the error output. The song may control it: on one line, and without control
        characters for a terminal."""
        return ascii(self._error_output[-ERROR_BYTES:].decode(errors="replace"))

    def _code_of(self, status: int) -> str:
        """Whose fault it is that the process ended while it read the song."""
        if -status in FROM_OUTSIDE:
            return "decoder_died"
        if status == -signal.SIGXCPU:
            return "too_slow"
        return "decoder_died" if self._was_readable and status else "unreadable"


def _report_missing(missing: list[Any]) -> None:
    """Log, once for each, the layers that the sandbox lacks on this machine."""
    for layer in missing:
        if isinstance(layer, str) and layer not in _reported and len(_reported) < 10:
            _reported.add(layer)
            logger.warning("Songs are read without %s: not to be had here", ascii(layer[:40]))
