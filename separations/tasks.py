"""Queue messages. They carry nothing: a message only says that there may be work."""

import logging

from django.db import transaction
from huey import crontab
from huey.contrib.djhuey import db_periodic_task, db_task

from separations import jobs, runner
from separations.models import Job

logger = logging.getLogger(__name__)


@db_task()
def work() -> None:
    """Run what waits."""
    runner.work_off()


@db_periodic_task(crontab())
def sweep() -> None:
    """Find jobs that nobody works on: lost messages, dead runners."""
    jobs.recover()
    if Job.objects.waiting().exists():
        wake()


def wake() -> None:
    """Send a message that there is work, once the row that means it is committed."""
    transaction.on_commit(_send)


def _send() -> None:
    try:
        work()
    except Exception:
        # The row is there and the next sweep will find it.
        logger.exception("The queue could not be reached")
