"""What a job's timeline tells, and that nothing changes without it."""

import pytest

from separations.errors.fault import Fault
from separations.jobs import lifecycle, transitions
from separations.models import Delivery, Job, Transition
from separations.worker import leases
from tests.support.jobs import ANNA, BERT, Submit, claimed, made, rested

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue")]


def told(job: Job) -> list[tuple[str, str]]:
    return [(line.state, line.cause) for line in job.timeline.all()]


def test_a_life_without_trouble(submit: Submit) -> None:
    job, twin = submit(), submit(BERT)
    assert leases.finish(claimed(), *made(Job.objects.get(pk=job.pk)))
    assert told(job) == [("queued", "submitted"), ("running", "claimed"), ("done", "finished")]
    assert told(twin) == [("queued", "submitted"), ("done", "shared")]
    assert told(submit(BERT)) == [("queued", "submitted"), ("done", "reused")]
    engine = job.timeline.get(cause="finished").detail
    assert engine == {"engine": "torch float32"}


def test_trouble_and_what_was_done_about_it(submit: Submit) -> None:
    job = submit()
    leases.hand_back(claimed())
    leases.end_with(claimed(), Fault("engine_died"))
    rested(job)
    Job.objects.update(heartbeat_at=claimed().queued_at)
    assert leases.recover() == 0, "its heart beat a moment ago"
    lifecycle.cancel(job, lifecycle.STAFF)
    lifecycle.retry(Job.objects.get(pk=job.pk), ANNA)
    assert told(job)[2:] == [
        ("queued", "handed_back"),
        ("running", "claimed"),
        ("queued", "fault"),
        ("running", "claimed"),
        ("cancelled", "cancelled"),
        ("queued", "retried"),
    ]
    fault = job.timeline.get(cause="fault").detail
    assert fault == {"error": "engine_died", "attempt": 1}
    assert job.timeline.get(cause="cancelled").detail == {"by": "staff"}
    assert job.timeline.get(cause="retried").detail == {"by": "owner"}


def test_who_asked_to_be_called_is_told_of_each_end_once(submit: Submit) -> None:
    job, silent = submit(), submit(BERT, shifts=1)
    Job.objects.filter(pk=job.pk).update(webhook_url="https://example.org/hook")
    lifecycle.cancel(job)
    lifecycle.cancel(job)
    lifecycle.cancel(silent)
    delivery = Delivery.objects.get()
    assert (delivery.job_id, delivery.url) == (job.pk, "https://example.org/hook")
    assert '"status": "cancelled"' in delivery.body
    assert str(job.pk) in delivery.body


def test_what_was_taken_back_is_not_in_the_timeline(
    submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit()

    def broken(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(transitions, "record", broken)
    with pytest.raises(RuntimeError):
        lifecycle.cancel(job)
    job.refresh_from_db()
    assert job.state == Job.State.QUEUED
    assert Transition.objects.count() == 1
