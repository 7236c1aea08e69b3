"""Health checks behind /readyz: whether the site can accept and separate a song now.

Anybody may read the result, so it has no details; those are in the log. Each check runs in a thread
of its own with a time limit, and does not start again while an earlier run has no answer: a
database that hangs delays no probe and collects no threads.
"""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from threading import Lock, Thread

from django.conf import settings
from django.db import connection

from separations.audio.sandbox.decoder_process import decoder_check
from separations.disk import disk_space
from separations.engine.weights.store import read_model
from separations.errors.fault import Fault
from separations.monitoring import fault_counts
from separations.queue import queue_switch

logger = logging.getLogger(__name__)
PATIENCE_SECONDS = 3.0  # for all checks together; probes wait five or ten
OK, UNKNOWN = "ok", "unknown"
NO_ANSWER, BROKEN = "no answer", "broken"
NO_DECODER, NO_ENGINE = "cannot read songs", "does not start"
INFORMATIVE = ("paused",)  # reported beside the checks, without making the site unready
Answers = Mapping[str, str]


def records() -> dict[str, str]:
    """The database, and what it records about consumers and the queue's switch."""
    try:
        faults = queue_switch.faults_of_the_living()
        paused = {"paused": "yes"} if queue_switch.is_paused() else {}
        alive = OK if faults else "none is heard of"
        return {"database": OK, "consumer": alive, "engine": _engine(faults), **paused}
    finally:
        connection.close()


def _engine(faults: list[dict[str, str]]) -> str:
    """Whether any consumer can separate songs, by its own tests."""
    if not faults:
        return UNKNOWN
    if not all(faults):
        return OK
    return NO_ENGINE if any("engine" in each for each in faults) else NO_DECODER


def decoder() -> dict[str, str]:
    """Whether songs can be decoded here, as this process knows; a test follows if one is due."""
    return {"decoder": NO_DECODER if decoder_check.check_soon() else OK}


def queue() -> dict[str, str]:
    settings.HUEY.storage.queue_size()
    return {"queue": OK}


def disk() -> dict[str, str]:
    return {"disk": "nearly full" if disk_space.is_short() else OK}


def model() -> dict[str, str]:
    try:
        read_model(settings.MODEL_DIR, settings.DEFAULT_MODEL)
    except Fault as fault:
        return {"model": "missing" if fault.code == "model_missing" else "unusable"}
    return {"model": OK}


class Check:
    """A check that one thread runs at a time; probes that come meanwhile share its answer."""

    def __init__(self, check: Callable[[], Answers], *names: str) -> None:
        """names: the keys of its answer; the first one carries the error if the check fails."""
        self._check, self._names = check, names
        self._lock = Lock()
        self._now: Future[Answers] | None = None

    def begin(self) -> "Future[Answers]":
        with self._lock:
            if self._now is None or self._now.done():
                self._now = Future()
                Thread(target=self._run, args=(self._now,), daemon=True).start()
            return self._now

    def _run(self, future: "Future[Answers]") -> None:
        try:
            future.set_result(self._check())
        except Exception as error:  # noqa: BLE001 - the probe always gets an answer
            # No traceback: the next probe comes in seconds.
            about = f"{type(error).__name__}: {error}"
            logger.warning("The check of the %s failed: %s", self._names[0], about)
            future.set_result(self._without(BROKEN))

    def answer(self, future: "Future[Answers]", until: float) -> Answers:
        try:
            return future.result(max(0.0, until - time.monotonic()))
        except TimeoutError:
            return self._without(NO_ANSWER)

    def _without(self, reason: str) -> Answers:
        first, *others = self._names
        return {first: reason, **dict.fromkeys(others, UNKNOWN)}


CHECKS = (
    Check(records, "database", "consumer", "engine"),
    Check(decoder, "decoder"),
    Check(queue, "queue"),
    Check(disk, "disk"),
    Check(model, "model"),
)


def checks() -> dict[str, str]:
    """The result of each check in words: "ok" or what is wrong."""
    until = time.monotonic() + PATIENCE_SECONDS
    begun = [(check, check.begin()) for check in CHECKS]
    found: dict[str, str] = {}
    for check, future in begun:
        found |= check.answer(future, until)
    _log_change(found)
    fault_counts.write_apart()
    return found


def is_ready(found: Answers) -> bool:
    return not _wrong(found)


def _wrong(found: Answers) -> str:
    bad = (each for each in found.items() if each[0] not in INFORMATIVE and each[1] != OK)
    return ", ".join(f"{name}: {word}" for name, word in bad)


_logged = [""]


def _log_change(found: Answers) -> None:
    """Log a change once; probes come every few seconds."""
    if (wrong := _wrong(found)) != _logged[0]:
        _logged[0] = wrong
        if wrong:
            logger.warning("Not ready: %s", wrong)
        else:
            logger.info("Ready again")
