"""The queue consumer: Huey's, with the crew that separates and hands its jobs back when stopped."""

import signal
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand
from huey.consumer import Consumer
from huey.contrib.djhuey import HUEY

from separations import tasks
from separations.runner import Crew
from stemsite import sentry

STOP_SECONDS = 20


class Command(BaseCommand):
    help = "Run the queue consumer, which separates what waits."

    def handle(self, *args: Any, **options: Any) -> None:
        sentry.start()
        crew = Crew()
        tasks.listen(crew)
        tasks.clean_soon()
        CrewedConsumer(crew).run()


class CrewedConsumer(Consumer):
    """A consumer whose messages are short, beside a crew whose jobs are long."""

    def __init__(self, crew: Crew) -> None:
        super().__init__(
            HUEY,
            workers=1,
            worker_type="thread",
            max_delay=0.5,
            graceful_signal="TERM",
            shutdown_timeout=STOP_SECONDS,
        )
        self._crew = crew

    def start(self) -> None:
        super().start()  # which sets what SIGTERM does, before there is a job to hand back
        self._crew.start()

    def _handle_signal(self, signum: int, frame: FrameType | None) -> None:
        super()._handle_signal(signum, frame)
        # Huey lets a second signal cut the first one's stop short, and running jobs would wait for
        # their leases' end. Service managers do send two: to the group, and through its leader.
        signal.signal(signum, self._handle_signal)

    def stop(self, graceful: bool = False) -> None:
        self._crew.stop()
        super().stop(graceful=graceful)
        self._crew.join(STOP_SECONDS)
