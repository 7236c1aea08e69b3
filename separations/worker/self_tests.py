"""Self-tests of a consumer: whether decoders and engines start here, and answer.

While one of them fails, the consumer claims no jobs, says why in its row (`models.Consumer.faults`)
and tries again. Work counts as a test: while all works, nothing is started for one beside songs.
"""

import logging
import threading
import time
from collections.abc import Callable

from separations.audio.sandbox.decoder_process import decoder_check
from separations.engine import memory
from separations.engine.process.engine_process import EngineProcess
from separations.errors.fault import Fault
from separations.logs.traces import cleaned_trace

logger = logging.getLogger(__name__)
LOOK_SECONDS = 2.0
FIRST_ENGINE_SECONDS = 10.0  # of idleness; a song that comes sooner starts an engine anyway
ENGINE_SECONDS = 1800.0  # loading torch takes a few seconds of a core
SHORTEST_RETRY, LONGEST_RETRY = 10.0, 300.0
MOST_CHARACTERS = 1000  # of a cause in the consumer's row
DECODER, ENGINE = "decoder", "engine"


class SelfTests:
    """The self-tests of one consumer.

    Args:
        is_busy: whether any slot runs a job.
        on_mended: called when all works again.
        make_room: frees so many bytes of memory, if idle engines hold them.
        machine: held by who loads an engine, or measures the machine.
    """

    def __init__(
        self,
        is_busy: Callable[[], bool],
        stopping: threading.Event,
        on_mended: Callable[[], None],
        make_room: Callable[[int], None],
        machine: threading.Lock,
    ) -> None:
        self._is_busy, self._stopping, self._on_mended = is_busy, stopping, on_mended
        self._make_room, self._machine = make_room, machine
        self._engine_cause = ""
        self._retry = SHORTEST_RETRY
        self._next_engine_test = time.monotonic() + FIRST_ENGINE_SECONDS

    def faults(self) -> dict[str, str]:
        """Why decoders or engines do not work here, cleaned; empty while both do."""
        causes = {DECODER: decoder_check.cause, ENGINE: self._engine_cause}
        return {
            name: cleaned_trace(cause, MOST_CHARACTERS) for name, cause in causes.items() if cause
        }

    def may_claim(self) -> bool:
        """Whether a job that is claimed now can be separated, as far as is known."""
        return not (decoder_check.cause or self._engine_cause)

    def engine_answered(self) -> None:
        """Record that an engine works, which is as good as a test."""
        self._record_engine("")

    def met(self, fault: Fault) -> None:
        """Test at once what a job found broken."""
        if fault.code == "decoder_unavailable":
            decoder_check.check()
        elif fault.code == "engine_unavailable":
            self._record_engine(fault.trace or fault.code)
        elif fault.code == "engine_died":
            self._next_engine_test = min(self._next_engine_test, time.monotonic())

    def run(self) -> None:
        """Test now and then, until the consumer stops."""
        pause = 0.0
        while not self._stopping.wait(pause):
            pause = LOOK_SECONDS
            try:
                self.test_what_is_due()
            except Exception:
                logger.exception("A self-test failed")

    def test_what_is_due(self) -> None:
        worked = self.may_claim()
        if decoder_check.is_due() and not (worked and self._is_busy()):
            decoder_check.check()
        if time.monotonic() >= self._next_engine_test and not self._gives_way():
            self.test_engine()
        if not worked and self.may_claim():
            self._on_mended()

    def _gives_way(self) -> bool:
        """Whether no engine is to be tested now: songs run, and none waits for the test."""
        return self._stopping.is_set() or (self._is_busy() and not self._engine_cause)

    def test_engine(self) -> None:
        """Start an engine process, have it answer, and end it; give up when a job comes. Not while
        an engine is loaded, or the machine is measured."""
        if not self._machine.acquire(blocking=False):
            return
        began = time.monotonic()
        try:
            self._make_room(memory.ENGINE_BYTES)
            with EngineProcess() as engine:
                if engine.check(self._gives_way):
                    self._record_engine("")
        except Fault as fault:
            # Songs take memory, and leave it again: that tells nothing about engines.
            if fault.code != "out_of_memory":
                self._record_engine(fault.trace or str(fault))
        finally:
            self._machine.release()
            if self._next_engine_test <= began and not self._gives_way():  # no result
                self._next_engine_test = time.monotonic() + SHORTEST_RETRY

    def _record_engine(self, cause: str) -> None:
        before, self._engine_cause = self._engine_cause, cause
        if cause:
            if not before:
                logger.error("No engine works here: %s", cleaned_trace(cause, MOST_CHARACTERS))
            self._next_engine_test = time.monotonic() + self._retry
            self._retry = min(LONGEST_RETRY, 2 * self._retry)
            return
        if before:
            logger.info("Engines work again")
        self._next_engine_test = time.monotonic() + ENGINE_SECONDS
        self._retry = SHORTEST_RETRY
