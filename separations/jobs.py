"""The life of a job. Every change of state is one compare-and-set UPDATE whose count is looked at.

    queued → running → done | failed | cancelled      failed | cancelled → queued (retry)
           ↖ lost, handed back

Only the holder of a job's lease may report on it; whoever finds that its update touched no row has
lost the job and stops.
"""

import hashlib
import json
import logging
import uuid
from dataclasses import asdict, replace
from datetime import datetime

from django.conf import settings
from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from separations import results
from separations.engine.messages import OUTPUT_VERSION, Done, Progress
from separations.engine.options import Options, settle
from separations.engine.store import ModelInfo, read_model
from separations.faults import Fault
from separations.models import Job, Owner, Stem, Upload

logger = logging.getLogger(__name__)
State = Job.State


def site_options(model: str, stems: str) -> Options:
    """The options of a job on this machine: the visitor's choice and the operator's settings."""
    return Options(
        model=model,
        stems=stems,
        device=settings.DEVICE,
        jobs=settings.JOBS,
        threads=settings.THREADS,
    )


def submit(upload: Upload, options: Options, owner: Owner) -> Job:
    """Queue a separation, or hand out the finished result of the same one.

    Raises:
        Fault: when the options cannot be met (see `separations.engine.options.settle`).
    """
    model = read_model(settings.MODEL_DIR, options.model)
    options, notes = settle(options, model)
    now = timezone.now()
    job = Job(
        upload=upload,
        user_id=owner.user_id,
        visitor=owner.visitor,
        model=options.model,
        stem_choice=options.stems,
        options=options.as_dict(),
        notes=[asdict(note) for note in notes],
        result_key=result_key(upload, options, model),
        queued_at=now,
    )
    with transaction.atomic():
        earlier = Job.objects.with_result(job.result_key).first()
        if earlier is None or not results.is_whole(earlier):
            job.save(force_insert=True)
            return job
        job.state, job.stage, job.progress, job.cached = State.DONE, Job.Stage.ENCODE, 1.0, True
        job.frames = earlier.frames
        job.started_at = job.finished_at = now
        job.save(force_insert=True)
        for stem in earlier.stems.all():
            Stem.objects.create(job=job, name=stem.name, position=stem.position, peak=stem.peak)
    return job


def result_key(upload: Upload, options: Options, model: ModelInfo) -> str:
    """What the stems depend on, hashed: same key, same bytes."""
    parts = {
        "samples": upload.samples_sha256,
        "model": model.digest,
        "options": options.that_change_samples(),
        "output": OUTPUT_VERSION,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


# For the runner


def claim() -> Job | None:
    """Take the next waiting job under a new lease, or None when nothing waits."""
    while (waiting := Job.objects.waiting().first()) is not None:
        now = timezone.now()
        taken = Job.objects.filter(pk=waiting.pk, state=State.QUEUED).update(
            state=State.RUNNING,
            stage=Job.Stage.START,
            progress=0.0,
            remaining=None,
            lease=uuid.uuid4(),
            heartbeat_at=now,
            started_at=now,
            attempt=F("attempt") + 1,
        )
        if taken:
            return Job.objects.select_related("upload").get(pk=waiting.pk)
    return None


def heartbeat(job: Job, progress: Progress | None) -> bool:
    """Say that the job is alive and how far it is. False when the lease is gone: stop then."""
    values: dict[str, object] = {"heartbeat_at": timezone.now()}
    if progress is not None:
        values |= {
            "stage": progress.stage,
            "progress": min(1.0, max(0.0, progress.fraction)),
            "remaining": progress.remaining,
        }
    return _held(job).update(**values) == 1


def finish(job: Job, done: Done) -> bool:
    """Record the published stems. False when the lease is gone."""
    with transaction.atomic():
        finished = _held(job).update(
            state=State.DONE,
            stage=Job.Stage.ENCODE,
            progress=1.0,
            remaining=None,
            lease=None,
            frames=done.frames,
            finished_at=timezone.now(),
        )
        if finished:
            Stem.objects.bulk_create(
                Stem(job=job, name=stem.name, position=position, peak=stem.peak)
                for position, stem in enumerate(done.stems)
            )
    return finished == 1


def fail(job: Job, fault: Fault) -> bool:
    """End the job with the reason. False when the lease is gone."""
    return (
        _held(job).update(
            state=State.FAILED,
            remaining=None,
            lease=None,
            error_code=fault.code,
            error_params=fault.params,
            finished_at=timezone.now(),
        )
        == 1
    )


def hand_back(job: Job, *, counts: bool) -> bool:
    """Put a job that is being run back into the queue; `counts` says whether it was an attempt."""
    return _held(job).update(**_queued_again(), attempt=F("attempt") - (0 if counts else 1)) == 1


def try_again_or_fail(job: Job, fault: Fault) -> None:
    """After a death that another attempt may not meet: queue it again while attempts are left."""
    if job.attempt < settings.MAX_ATTEMPTS:
        hand_back(job, counts=True)
    else:
        fail(job, fault)


def _held(job: Job) -> QuerySet[Job]:
    return Job.objects.filter(pk=job.pk, state=State.RUNNING, lease=job.lease)


def _queued_again() -> dict[str, object]:
    return {
        "state": State.QUEUED,
        "stage": Job.Stage.WAIT,
        "progress": 0.0,
        "remaining": None,
        "lease": None,
    }


# For everyone else


def recover(now: datetime | None = None) -> int:
    """Queue again what dead runners left behind; fail what was tried often enough. Counts both."""
    now = now or timezone.now()
    recovered = 0
    for job in Job.objects.stalled(now):
        logger.warning("Job %s stalled in attempt %s (%s)", job.pk, job.attempt, job.stage)
        stalled = Job.objects.stalled(now).filter(pk=job.pk, lease=job.lease)
        if job.attempt < settings.MAX_ATTEMPTS:
            recovered += stalled.update(**_queued_again())
        else:
            recovered += stalled.update(
                state=State.FAILED,
                remaining=None,
                lease=None,
                error_code="lost",
                error_params={"attempts": job.attempt},
                finished_at=now,
            )
    return recovered


def cancel(job: Job) -> bool:
    """Stop a waiting or running job. Its runner notices within a second."""
    return (
        Job.objects.filter(pk=job.pk, state__in=(State.QUEUED, State.RUNNING)).update(
            state=State.CANCELLED, remaining=None, lease=None, finished_at=timezone.now()
        )
        == 1
    )


def retry(job: Job) -> bool:
    """Queue a failed or cancelled job again, with all its attempts.

    Raises:
        Fault: upload_gone when the song is not kept any more.
    """
    if not job.upload.path.exists():
        raise Fault("upload_gone")
    return (
        Job.objects.filter(pk=job.pk, state__in=(State.FAILED, State.CANCELLED)).update(
            **_queued_again(),
            attempt=0,
            error_code="",
            error_params={},
            queued_at=timezone.now(),
            finished_at=None,
        )
        == 1
    )


def again(job: Job, options: Options, owner: Owner) -> Job:
    """Separate the song of `job` once more, with other options.

    Raises:
        Fault: upload_gone, or what `submit` raises.
    """
    if not job.upload.path.exists():
        raise Fault("upload_gone")
    unchanged = {"segment", "shifts", "overlap", "split", "rest"}
    kept = {name: value for name, value in job.options.items() if name in unchanged}
    return submit(job.upload, replace(options, **kept), owner)


def remove(job: Job) -> None:
    """Delete a job in any state, and its files unless another job uses them too."""
    cancel(job)
    upload, key = job.upload, job.result_key
    song = upload.path
    result, renditions = job.result_folder, job.rendition_folder
    with transaction.atomic():
        job.delete()
        upload_is_used = upload.jobs.exists()
        if not upload_is_used:
            upload.delete()
    results.discard_renditions(renditions)
    if not upload_is_used:
        song.unlink(missing_ok=True)
    if not Job.objects.needing_result(key).exists():
        results.discard(result)
