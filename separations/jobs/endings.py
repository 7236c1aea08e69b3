"""How a job ends: done, failed or cancelled. The one place that writes an end.

Each end is one compare-and-set UPDATE (see `_end`), and is called in a transaction.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict

from django.utils import timezone

from separations.engine.process.engine_protocol import Done
from separations.errors.fault import Fault
from separations.jobs import transitions
from separations.models import Job, JobQuerySet, Stem, Transition

State = Job.State
Cause = Transition.Cause


def finish(job: Job, done: Done) -> bool:
    """End a running job, whose row is locked, with the stems that its engine made."""
    columns = {
        "memory_used": done.memory,
        "engine": done.engine,
        "frames": done.frames,
        "song_peak": done.mixture.peak,
        "song_loudness": done.mixture.loudness,
    }
    stems = (
        Stem(job=job, position=position, **asdict(stem)) for position, stem in enumerate(done.stems)
    )
    held = Job.objects.held(job.lease)
    return _end(job, held, State.DONE, columns, Cause.FINISHED, {"engine": done.engine}, stems)


def share_result(finished: Job, waiting: JobQuerySet, cause: Cause) -> int:
    """End queued jobs of the same key with the stems of a finished one; returns how many ended."""
    stems = list(finished.stems.all())
    columns = {
        "cached": True,
        "engine": finished.engine,
        "frames": finished.frames,
        "song_peak": finished.song_peak,
        "song_loudness": finished.song_loudness,
        "started_at": timezone.now(),
    }
    ended = 0
    for job in waiting:
        copies = (
            Stem(
                job=job,
                name=stem.name,
                position=stem.position,
                peak=stem.peak,
                loudness=stem.loudness,
            )
            for stem in stems
        )
        detail = {"source": str(finished.pk)}
        ended += _end(job, _queued(), State.DONE, columns, cause, detail, copies)
    return ended


def fail(job: Job, fault: Fault) -> bool:
    """End a queued or running job, whose row is locked, and those attached to it, with a fault.

    Those attached have the same samples, model and options: they would meet the same fault, unless
    it is that this job's own file is gone.
    """
    columns = {"error_code": fault.code, "error_params": fault.params}
    detail = {"error": fault.code, "attempt": job.attempt}
    expected = Job.objects.active().filter(lease=job.lease)
    if not _end(job, expected, State.FAILED, columns, Cause.FAULT, detail, trace=fault.trace):
        return False
    if fault.code != "upload_gone":
        detail["source"] = str(job.pk)
        for attached in Job.objects.attached_to(job):
            _end(attached, _queued(), State.FAILED, columns, Cause.FAULT, detail)
    return True


def cancel(job: Job, by: str) -> bool:
    """End a queued or running job because its owner or the staff asked for that."""
    return _end(job, Job.objects.active(), State.CANCELLED, {}, Cause.CANCELLED, {"by": by})


def _queued() -> JobQuerySet:
    return Job.objects.filter(state=State.QUEUED)


def _end(
    job: Job,
    expected: JobQuerySet,
    state: State,
    columns: Mapping[str, object],
    cause: Cause,
    detail: Mapping[str, object],
    stems: Iterable[Stem] = (),
    *,
    trace: str = "",
) -> bool:
    """End `job` in one UPDATE if it is still among `expected`; returns whether this call did.

    Releases its lease and memory, and forgets the client's address. The stems are stored before
    the transition, since a webhook's body lists them.
    """
    now = timezone.now()
    ended: dict[str, object] = {
        "state": state,
        "network": "",
        "remaining": None,
        "lease": None,
        "memory_reserved": None,
        "finished_at": now,
    }
    if state == State.DONE:
        ended |= {"stage": Job.Stage.ENCODE, "progress": 1.0, "used_at": now}
    if not expected.filter(pk=job.pk).update(**ended, **columns):
        return False
    Stem.objects.bulk_create(stems)
    transitions.record([job.pk], state, cause, trace, **detail)
    return True
