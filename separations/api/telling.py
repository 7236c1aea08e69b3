"""Jobs as the API tells of them."""

import math
from typing import Any

from django.http import HttpRequest
from django.urls import reverse

from separations import problems, sentences, waiting
from separations.api import schemas
from separations.faults import Fault
from separations.labels import stem_label
from separations.models import Job
from separations.webhooks import STATUS


def status_of(job: Job) -> schemas.Status:
    status: schemas.Status = STATUS[Job.State(job.state)]  # type: ignore[assignment]
    return status


def progress_of(job: Job) -> schemas.Progress:
    """How far a job is, by the job that runs for it where that is another."""
    way = waiting.way_of(job)
    run = way.run
    return schemas.Progress(
        status=status_of(run),
        progress=run.percent,
        stage=way.held_up or (run.stage if run.is_active else None),
        eta=None if run.remaining is None else math.ceil(max(0.0, run.remaining)),
        queue_position=way.place or None,
    )


def task_of(request: HttpRequest, job: Job) -> schemas.Task:
    stems = _stems(request, job)
    options = job.separation
    now = progress_of(job)
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
        options=schemas.UsedOptions(
            stems=options.stems,
            rest=options.rest,
            segment=options.segment,
            shifts=options.shifts,
            overlap=options.overlap,
            split=options.split,
        ),
        title=job.upload.title,
        artist=job.upload.artist,
        duration=job.upload.seconds,
        stems=stems,
        notes=sentences.note_sentences(job.notes),
        error=_error(job),
        expired=job.is_expired,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


def new_task_of(
    request: HttpRequest, job: Job, token: str | None, webhook_secret: str | None
) -> schemas.NewTask:
    told: dict[str, Any] = dict(task_of(request, job))
    return schemas.NewTask(**told, token=token, webhook_secret=webhook_secret)


def _error(job: Job) -> schemas.Problem | None:
    if not job.error_code:
        return None
    return schemas.Problem(**problems.problem(Fault(job.error_code, **job.error_params)))


def _stems(request: HttpRequest, job: Job) -> list[schemas.StemLinks]:
    if not job.has_stems:
        return []
    return [
        schemas.StemLinks(
            name=stem.name,
            label=stem_label(stem.name),
            peak=stem.peak,
            loudness=stem.loudness,
            url=_address(request, "stem", job, stem_name=stem.name),
        )
        for stem in job.stems.all()
    ]


def _links(request: HttpRequest, job: Job, stems: list[schemas.StemLinks]) -> schemas.Links:
    names = ("progress", "archive", "mixdown", "cancel", "retry")
    page = reverse("separations:job", args=[job.pk])
    return schemas.Links(
        self=_address(request, "task", job),
        stems={stem.name: stem.url for stem in stems},
        page=request.build_absolute_uri(page),
        **{name: _address(request, name, job) for name in names},
    )


def _address(request: HttpRequest, name: str, job: Job, **more: str) -> str:
    path = reverse(f"api:{name}", kwargs={"task_id": job.pk, **more})
    return request.build_absolute_uri(path)
