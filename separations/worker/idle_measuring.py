"""Measure which engine runs each model fastest on this machine, while nothing else wants it.

`make run` measures before the site is ready. What is left, on a container's first start or for a
model that was added since, is measured here: songs come first, on the engine that is guessed best.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from django.conf import settings
from django.db import close_old_connections, connection

from separations.disk import disk_space
from separations.engine import memory
from separations.engine.engine_choice import has_alternatives
from separations.engine.options import Options
from separations.engine.tuning import tuner
from separations.engine.weights.store import ModelInfo, list_models
from separations.errors import database_outage
from separations.jobs import lifecycle
from separations.models import Job
from separations.queue import queue_switch
from separations.worker import candidates, resources

logger = logging.getLogger(__name__)
LOOK_SECONDS = 2.0
IDLE_SECONDS = 30.0  # without a song, before measuring begins or goes on
NOTHING_SECONDS = 60.0  # until it is looked for models again, when all are measured
AGAIN_SECONDS = 3600.0  # after it failed


class GivesWay(Exception):
    """A song wants the machine, or the consumer is going down."""


class IdleMeasuring:
    """Measures one model after the other; `run` is the work of a thread.

    Args:
        busy: whether a song runs in this consumer; asked a few times a second.
        make_room: frees so many bytes of memory, if idle engines hold them.
        measured: called when there is a new choice.
        machine: held while a model is measured, and by who loads or tests an engine.
    """

    def __init__(
        self,
        threads: int,
        stopping: threading.Event,
        busy: Callable[[], bool],
        make_room: Callable[[int], None],
        measured: Callable[[], None],
        machine: threading.Lock,
    ) -> None:
        self._threads, self._stopping, self._busy = threads, stopping, busy
        self._make_room, self._measured, self._machine = make_room, measured, machine
        self._looked = 0.0  # at the database
        self._begun: set[str] = set()  # models whose measuring was announced

    def run(self) -> None:
        idle_since = time.monotonic()
        pause = LOOK_SECONDS
        try:
            while not self._stopping.wait(pause):
                now, pause = time.monotonic(), LOOK_SECONDS
                try:
                    close_old_connections()
                    if self._is_wanted():
                        idle_since = now
                    elif now - idle_since >= IDLE_SECONDS and not self._measure_next():
                        pause = NOTHING_SECONDS
                except GivesWay:
                    idle_since = time.monotonic()
                except Exception as error:
                    pause = AGAIN_SECONDS
                    if not database_outage.log_if_outage(error):
                        logger.exception(
                            "This machine could not be measured; songs run all the same"
                        )
                    connection.close()
        finally:
            connection.close()

    def _is_wanted(self) -> bool:
        """Whether a song runs on this machine, or waits and may start."""
        if self._busy():
            return True
        self._looked = time.monotonic()
        if Job.objects.running().filter(host=resources.HOST).exists():
            return True
        return not queue_switch.is_paused() and candidates.next_job([]) is not None

    def _measure_next(self) -> bool:
        """Measure a model for which there is no choice; False if there is none."""
        for model in list_models(settings.MODEL_DIR):
            options = self._options(model)
            folders = settings.MODEL_DIR, settings.ENGINE_DIR
            if not has_alternatives(model, options) or tuner.known(*folders, options, old=False):
                continue
            if model.name not in self._begun:
                self._begun.add(model.name)
                logger.info(
                    "%s: the fastest engine on this machine is looked for while no song wants it. "
                    "Where songs always do: manage.py models %s --measure",
                    *(model.name, model.name),
                )
            if not self._machine.acquire(blocking=False):
                raise GivesWay
            try:
                self._make_room(memory.estimated_need(model, tuner.MOST_STREAMS))
                tuner.choose(*folders, options, self._give_way)
            finally:
                self._machine.release()
            self._measured()
            return True
        return False

    def _options(self, model: ModelInfo) -> Options:
        options = lifecycle.site_options(model.name)
        return replace(options, threads=options.threads or self._threads)

    def _give_way(self) -> None:
        """Raises GivesWay, which ends what is being tried, as soon as a song wants the machine."""
        if self._stopping.is_set() or self._busy():
            raise GivesWay
        if time.monotonic() - self._looked > LOOK_SECONDS and self._is_wanted():
            raise GivesWay
        disk_space.check_next(settings.ENGINE_DIR, tuner.SCRATCH_BYTES)
