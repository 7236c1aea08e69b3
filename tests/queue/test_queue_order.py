"""The order of the queue: what comes before a place is what sorting puts before it."""

import random
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from separations.engine.options import Options
from separations.models import Job, Upload
from separations.models.queue_order import comes_before, place_of
from tests.support.jobs import ANNA

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue")]
THEN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def queue(upload: Upload) -> list[Job]:
    """Jobs at every mixture of priorities, turns and times, twice each, in the queue's order."""
    places = list(product((-1, 0, 1), (0, 1), (0, 1))) * 2
    random.Random(3).shuffle(places)
    for number, (priority, turn, minutes) in enumerate(places):
        Job.objects.create(
            upload=upload,
            visitor=ANNA.visitor,
            model="tiny",
            options=Options(model="tiny").as_dict(),
            result_key=str(number),
            priority=priority,
            turn=turn,
            queued_at=THEN + timedelta(minutes=minutes),
        )
    return list(Job.objects.waiting())


def test_what_sorting_puts_before_a_job_comes_before_it(queue: list[Job]) -> None:
    for number, job in enumerate(queue):
        before = Job.objects.filter(comes_before(place_of(job))).in_queue_order()
        assert list(before) == queue[:number]
        assert set(Job.objects.ahead_of(job)) == set(queue[:number])


def test_a_newcomer_stands_behind_its_round(queue: list[Job]) -> None:
    newcomer = {"priority": 0, "turn": 0, "queued_at": THEN + timedelta(hours=1)}
    before = list(Job.objects.waiting_before(newcomer))
    assert before == [job for job in queue if (-job.priority, job.turn) <= (0, 0)]
