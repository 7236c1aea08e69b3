"""The queue consumer: Huey's, with the crew that separates and hands its jobs back when stopped,
and the courier that calls webhooks."""

import signal
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand
from huey.consumer import Consumer
from huey.contrib.djhuey import HUEY

from separations import tasks, webhooks
from separations.courier import Courier
from separations.runner import Crew
from stemsite import sentry

STOP_SECONDS = 20


class Command(BaseCommand):
    help = "Run the queue consumer, which separates what waits."

    def handle(self, *args: Any, **options: Any) -> None:
        sentry.start()
        crew, courier = Crew(), Courier()
        tasks.listen(crew.call, courier.call)
        webhooks.listen(courier.call)
        tasks.clean_soon()
        CrewedConsumer(crew, courier).run()


class CrewedConsumer(Consumer):
    """A consumer whose messages are short, beside a crew whose jobs are long."""

    def __init__(self, crew: Crew, courier: Courier) -> None:
        super().__init__(
            HUEY,
            workers=1,
            worker_type="thread",
            max_delay=0.5,
            graceful_signal="TERM",
            shutdown_timeout=STOP_SECONDS,
        )
        self._crew, self._courier = crew, courier

    def start(self) -> None:
        super().start()  # which sets what SIGTERM does, before there is a job to hand back
        self._crew.start()
        self._courier.start()

    def _handle_signal(self, signum: int, frame: FrameType | None) -> None:
        super()._handle_signal(signum, frame)
        # Huey lets a second signal cut the first one's stop short, and running jobs would wait for
        # their leases' end. Service managers do send two: to the group, and through its leader.
        signal.signal(signum, self._handle_signal)

    def stop(self, graceful: bool = False) -> None:
        self._crew.stop()
        self._courier.stop()
        super().stop(graceful=graceful)
        self._crew.join(STOP_SECONDS)
        self._courier.join(STOP_SECONDS)
