"""Whether the site can take a song now. Anybody may ask, so the answers are words without detail.

Each look has a thread of its own, is waited for so long and no longer, and is not begun again
while an earlier one has no answer: a database that hangs holds up no probe and gathers no threads.
What went wrong exactly stands in the log.
"""

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from threading import Lock, Thread

from django.conf import settings
from django.db import connection

from separations import control
from separations.engine.store import read_model
from separations.faults import Fault
from separations.models import Consumer

logger = logging.getLogger(__name__)
PATIENCE_SECONDS = 3.0  # for all looks together; probes wait five or ten
OK, UNKNOWN = "ok", "unknown"
NO_ANSWER, BROKEN = "no answer", "broken"
TELLING = ("paused",)  # what is told beside the checks, and keeps nobody away
Answers = Mapping[str, str]


def records() -> dict[str, str]:
    """The database, and what stands in it of consumers and of the queue's switch."""
    try:
        alive = Consumer.objects.alive().exists()
        paused = {"paused": "yes"} if control.is_paused() else {}
        return {"database": OK, "consumer": OK if alive else "none is heard of", **paused}
    finally:
        connection.close()


def queue() -> dict[str, str]:
    settings.HUEY.storage.queue_size()
    return {"queue": OK}


def disk() -> dict[str, str]:
    free = shutil.disk_usage(settings.DATA_DIR).free
    return {"disk": OK if free >= settings.MIN_FREE_DISK_MB * 1_000_000 else "nearly full"}


def model() -> dict[str, str]:
    try:
        read_model(settings.MODEL_DIR, settings.DEFAULT_MODEL)
    except Fault as fault:
        return {"model": "missing" if fault.code == "model_missing" else "unusable"}
    return {"model": OK}


class Look:
    """One look, taken by one thread at a time, whose answer all who ask meanwhile share."""

    def __init__(self, look: Callable[[], Answers], *names: str) -> None:
        """names: what it answers; the first one stands for all where it does not."""
        self._look, self._names = look, names
        self._lock = Lock()
        self._now: Future[Answers] | None = None

    def begin(self) -> "Future[Answers]":
        with self._lock:
            if self._now is None or self._now.done():
                self._now = Future()
                Thread(target=self._take, args=(self._now,), daemon=True).start()
            return self._now

    def _take(self, future: "Future[Answers]") -> None:
        try:
            future.set_result(self._look())
        except Exception as error:  # noqa: BLE001 - whatever it is, the probe gets an answer
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


LOOKS = (
    Look(records, "database", "consumer"),
    Look(queue, "queue"),
    Look(disk, "disk"),
    Look(model, "model"),
)


def checks() -> dict[str, str]:
    """What each check says, in words: "ok" or what is wrong."""
    until = time.monotonic() + PATIENCE_SECONDS
    begun = [(look, look.begin()) for look in LOOKS]
    found: dict[str, str] = {}
    for look, future in begun:
        found |= look.answer(future, until)
    _log_change(found)
    return found


def is_ready(found: Answers) -> bool:
    return not _wrong(found)


def _wrong(found: Answers) -> str:
    bad = (each for each in found.items() if each[0] not in TELLING and each[1] != OK)
    return ", ".join(f"{name}: {word}" for name, word in bad)


_logged = [""]


def _log_change(found: Answers) -> None:
    """Probes ask every few seconds; the log tells once what changed."""
    if (wrong := _wrong(found)) != _logged[0]:
        _logged[0] = wrong
        if wrong:
            logger.warning("Not ready: %s", wrong)
        else:
            logger.info("Ready again")
