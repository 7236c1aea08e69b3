"""The queue consumer: Huey's, with running jobs handed back when it is told to stop."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from huey.consumer import Consumer
from huey.contrib.djhuey import HUEY

from separations import runner, tasks

STOP_SECONDS = 20


class HandingBackConsumer(Consumer):
    def stop(self, graceful: bool = False) -> None:
        runner.stop()
        super().stop(graceful=graceful)


class Command(BaseCommand):
    help = "Run the queue consumer, which separates what waits."

    def handle(self, *args: Any, **options: Any) -> None:
        # At once: what came while no consumer ran. A lease later: what the last one died over.
        tasks.sweep.call_local()
        tasks.sweep.schedule(delay=settings.LEASE_SECONDS + 1)
        consumer = HandingBackConsumer(
            HUEY,
            # One worker is left for housekeeping while every slot is busy for minutes.
            workers=settings.SLOTS + 1,
            worker_type="thread",
            max_delay=0.5,
            graceful_signal="TERM",
            shutdown_timeout=STOP_SECONDS,
        )
        consumer.run()
