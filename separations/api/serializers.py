"""Serializers: a job as the API's schemas."""

import math
from typing import Any

from django.http import HttpRequest
from django.urls import reverse

from separations.api import named_values, schemas
from separations.audio.encoding.render import gain_db
from separations.delivery.stem_names import stem_label
from separations.errors import problem_details, user_messages
from separations.errors.fault import Fault
from separations.jobs.results import needed_gain
from separations.models import Job
from separations.queue import queue_position
from separations.webhooks.events import STATUS


def status_name(job: Job) -> named_values.Status:
    status: named_values.Status = STATUS[Job.State(job.state)]  # type: ignore[assignment]
    return status


def current_progress(job: Job) -> schemas.Progress:
    """A job's progress: that of the job whose run it waits for, if any."""
    way = queue_position.standing_of(job)
    run = way.run
    return schemas.Progress(
        status=status_name(run),
        progress=run.percent,
        stage=way.held_up or (run.stage if run.is_active else None),
        eta=None if run.remaining is None else math.ceil(max(0.0, run.remaining)),
        queue_position=way.place or None,
        error=_error(job),
    )


def serialize_task(request: HttpRequest, job: Job) -> schemas.Task:
    stems = _stems(request, job)
    now = current_progress(job)
    return schemas.Task(
        status=now.status,
        progress=now.progress,
        stage=now.stage,
        eta=now.eta,
        queue_position=now.queue_position,
        task_id=job.pk,
        links=_links(request, job, stems),
        cached=job.cached,
        model=job.model,
        options=schemas.UsedOptions.model_validate(job.separation.as_dict()),
        title=job.upload.title,
        artist=job.upload.artist,
        album=job.upload.album or None,
        track=job.upload.track,
        track_total=job.upload.track_total,
        year=job.upload.year,
        genre=job.upload.genre or None,
        bpm=job.upload.bpm,
        key=job.upload.key or None,
        duration=job.upload.seconds,
        sample_rate=job.upload.sample_rate,
        stems=stems,
        notes=user_messages.note_sentences(job.notes),
        error=now.error,
        gain_db=gain_db(needed_gain(job)) if job.has_stems else None,
        expired=job.is_expired,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


def serialize_new_task(
    request: HttpRequest, job: Job, token: str | None, webhook_secret: str | None
) -> schemas.NewTask:
    fields: dict[str, Any] = dict(serialize_task(request, job))
    return schemas.NewTask(**fields, token=token, webhook_secret=webhook_secret)


def _error(job: Job) -> schemas.Problem | None:
    if not job.error_code:
        return None
    return schemas.Problem(**problem_details.problem(Fault(job.error_code, **job.error_params)))


def _stems(request: HttpRequest, job: Job) -> list[schemas.StemLinks]:
    if not job.has_stems:
        return []
    return [
        schemas.StemLinks(
            name=stem.name,
            label=stem_label(stem.name),
            peak=stem.peak,
            loudness=stem.loudness,
            url=_url(request, "stem", job, stem_name=stem.name),
        )
        for stem in job.stems.all()
    ]


def _links(request: HttpRequest, job: Job, stems: list[schemas.StemLinks]) -> schemas.Links:
    names = ("progress", "archive", "mixdown", "cancel", "retry")
    page = reverse("separations:job", args=[job.pk])
    return schemas.Links(
        self=_url(request, "task", job),
        stems={stem.name: stem.url for stem in stems},
        page=request.build_absolute_uri(page),
        cover=_url(request, "cover", job) if job.upload.has_cover else None,
        **{name: _url(request, name, job) for name in names},
    )


def _url(request: HttpRequest, name: str, job: Job, **more: str) -> str:
    path = reverse(f"api:{name}", kwargs={"task_id": job.pk, **more})
    return request.build_absolute_uri(path)
