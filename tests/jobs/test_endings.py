"""The end of a job: what every end sets, releases and announces, whichever way it comes."""

import ast
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django import Settings

from separations.engine.process.engine_protocol import Progress
from separations.errors.fault import Fault
from separations.jobs import lifecycle
from separations.models import Delivery, Job, Transition
from separations.worker import leases
from tests.support.jobs import Submit, claimed, finished, made
from tests.support.sounds import ROOT

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue")]
State = Job.State
Cause = Transition.Cause
End = Callable[[Job, Submit], Job]


def finish(job: Job, submit: Submit) -> Job:
    return finished(job)


def finish_attached(job: Job, submit: Submit) -> Job:
    running = claimed()
    attached = submit()
    leases.finish(running, *made(running))
    return attached


def reuse(job: Job, submit: Submit) -> Job:
    finished(job)
    return submit()


def fail(job: Job, submit: Submit) -> Job:
    leases.fail(claimed(), Fault("bad_audio"))
    return job


def fail_attached(job: Job, submit: Submit) -> Job:
    running = claimed()
    attached = submit()
    leases.fail(running, Fault("bad_audio"))
    return attached


def lose(job: Job, submit: Submit) -> Job:
    running = claimed()
    long_ago = timezone.now() - timedelta(days=1)
    Job.objects.filter(pk=running.pk).update(heartbeat_at=long_ago, attempt=99)
    leases.recover()
    return job


def cancel(job: Job, submit: Submit) -> Job:
    leases.heartbeat(claimed(), Progress("separate", 0.5, 60.0))
    lifecycle.cancel(job)
    return job


@pytest.mark.parametrize(
    ("end", "state", "cause"),
    [
        (finish, State.DONE, Cause.FINISHED),
        (finish_attached, State.DONE, Cause.SHARED),
        (reuse, State.DONE, Cause.REUSED),
        (fail, State.FAILED, Cause.FAULT),
        (fail_attached, State.FAILED, Cause.FAULT),
        (lose, State.FAILED, Cause.FAULT),
        (cancel, State.CANCELLED, Cause.CANCELLED),
    ],
)
def test_every_end_is_the_same_end(
    submit: Submit, settings: Settings, end: End, state: State, cause: Cause
) -> None:
    settings.WEBHOOKS = True

    def submit_with_webhook() -> Job:
        job = submit()
        address = {"webhook_url": "https://example.org/", "network": "x", "memory_reserved": 5}
        if job.is_active:
            Job.objects.filter(pk=job.pk).update(**address)
        return job

    started = timezone.now()
    ended = end(submit_with_webhook(), submit_with_webhook)
    ended.refresh_from_db()
    assert ended.state == state
    assert ended.finished_at is not None
    assert started < ended.finished_at <= timezone.now()
    released = (ended.lease, ended.memory_reserved, ended.remaining, ended.network)
    assert released == (None, None, None, "")
    last = ended.timeline.last()
    assert last is not None
    assert (last.state, last.cause) == (state, cause)
    assert ended.timeline.filter(state__in=Job.ENDED).count() == 1
    if cause != Cause.REUSED:  # which ended before it had an address to call
        assert Delivery.objects.filter(job=ended).count() == 1
    done = state == State.DONE
    assert (ended.used_at is not None, ended.progress == 1.0, ended.stems.exists()) == (done,) * 3


def test_an_end_is_written_in_one_place() -> None:
    """No other module of the rooms that change jobs sets the time at which a job ended."""
    writers = set()
    for path in (ROOT / "separations").rglob("*.py"):
        changes_jobs = path.parent.name in ("jobs", "worker", "queue", "uploads")
        for node in ast.walk(ast.parse(path.read_text())):
            keys = node.keys if isinstance(node, ast.Dict) and changes_jobs else []
            names = {key.value for key in keys if isinstance(key, ast.Constant)}
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                names |= {each.arg for each in node.keywords if node.func.attr == "update"}
            if "finished_at" in names:
                writers.add(f"{path.parent.name}.{path.stem}")
    assert writers == {"jobs.endings", "jobs.transitions"}, "the latter clears it: queued again"
