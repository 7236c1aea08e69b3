"""`manage.py run_consumer`: Huey's consumer, the slots that separate, the webhook dispatcher."""

import signal
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand
from huey.consumer import Consumer
from huey.contrib.djhuey import HUEY

from separations.accounts import tasks as mail_tasks  # noqa: F401 - Huey finds them
from separations.monitoring import sentry
from separations.webhooks import events
from separations.webhooks.dispatcher import Dispatcher
from separations.worker import tasks
from separations.worker.crew import Crew

STOP_SECONDS = 20


class Command(BaseCommand):
    help = "Run the queue consumer, which separates what waits."

    def handle(self, *args: Any, **options: Any) -> None:
        sentry.start()
        crew, dispatcher = Crew(), Dispatcher()
        tasks.listen(crew.wake, dispatcher.wake)
        events.add_listener(dispatcher.wake)
        tasks.clean_soon()
        SiteConsumer(crew, dispatcher).run()


class SiteConsumer(Consumer):
    """Huey's consumer for short tasks, and beside it the slots, whose jobs take minutes."""

    def __init__(self, crew: Crew, dispatcher: Dispatcher) -> None:
        super().__init__(
            HUEY,
            workers=1,
            worker_type="thread",
            max_delay=0.5,
            graceful_signal="TERM",
            shutdown_timeout=STOP_SECONDS,
        )
        self._crew, self._dispatcher = crew, dispatcher

    def start(self) -> None:
        super().start()  # sets the signal handlers, before there is a job to hand back
        self._crew.start()
        self._dispatcher.start()

    def _handle_signal(self, signum: int, frame: FrameType | None) -> None:
        super()._handle_signal(signum, frame)
        # Huey stops at once at a second signal, and running jobs would wait for the end of their
        # leases. Service managers do send two: to the process group, and through its leader.
        signal.signal(signum, self._handle_signal)

    def stop(self, graceful: bool = False) -> None:
        self._crew.stop()
        self._dispatcher.stop()
        super().stop(graceful=graceful)
        self._crew.join(STOP_SECONDS)
        self._dispatcher.join(STOP_SECONDS)
