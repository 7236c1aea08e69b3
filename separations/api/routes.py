"""The API's addresses: read the request, call a service, answer."""

import uuid
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, cast

from django.conf import settings
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from ninja import File, Form, Header, Query, Router
from ninja import Status as Answer
from ninja.files import UploadedFile

from separations import (
    access,
    askers,
    downloads,
    intake,
    jobs,
    sending,
    tasks,
    uploads,
    webhooks,
)
from separations.api import auth, schemas
from separations.api.events import progress_stream
from separations.api.openapi import EVENT, OPEN, binary, problems_of
from separations.api.telling import new_task_of, status_of, task_of
from separations.audio.formats import FORMATS, Format
from separations.engine.store import list_models
from separations.faults import Fault
from separations.forms import ABOUT_MODELS, ADDED_MODEL
from separations.models import Job, Owner
from separations.upload_limit import refused

router = Router()
MOST_A_PAGE = 100
Key = Annotated[
    str | None,
    Header(
        None,
        alias="Idempotency-Key",
        pattern="^[!-~]{16,200}$",
        description="16 to 200 random characters, new for each song. A request that is sent "
        "again with its key makes no second job.",
    ),
]
Wanted = Annotated[schemas.Wanted, Query(...)]


# Sending


@router.post(
    "/separate",
    response={202: schemas.NewTask, **problems_of(400, 401, 403, 413, 415, 422, 429, 503, 507)},
    auth=[*auth.KNOWN, auth.anyone],
    openapi_extra=OPEN,
    url_name="separate",
    summary="Send a song",
    tags=["Songs"],
)
def separate(
    request: HttpRequest,
    asked: Annotated[schemas.Asked, Form(...)],
    file: Annotated[UploadedFile, File(..., description="The song.")],
    idempotency_key: Key,
) -> Any:
    """Queue the separation of a song, or get at once what was made of the same one before."""
    key = idempotency_key or ""
    owner, token = _owner(request, key)
    if asked.webhook_url:
        webhooks.check_url(asked.webhook_url)
    options = replace(
        jobs.site_options(asked.model or settings.DEFAULT_MODEL, asked.stems),
        rest=asked.rest,
        segment=asked.segment,
        shifts=asked.shifts,
        overlap=asked.overlap,
        split=asked.split,
    )
    song = _song(request)
    once = None
    if key:
        digest = getattr(song, "sha256", "")
        once = intake.Once.of(owner, key, digest, options.as_dict(), asked.webhook_url)
    job = intake.take_in(
        partial(uploads.accept, song, owner.client),
        options,
        owner,
        webhook_url=asked.webhook_url or "",
        once=once,
    )
    tasks.wake()
    # An account's stands on its page, and is not for every program that has a token.
    for_visitor = asked.webhook_url and owner.user_id is None
    secret = webhooks.secret_of(owner) if for_visitor else None
    return Answer(202, new_task_of(request, job, token, secret))


def _owner(request: HttpRequest, key: str) -> tuple[Owner, str | None]:
    """Whose the song is to be; with a token for who came without one."""
    if request.auth is not True:  # type: ignore[attr-defined]
        return request.auth, None  # type: ignore[attr-defined]
    owner = askers.newcomer(request, key)
    return owner, askers.token_of(owner)


def _song(request: HttpRequest) -> TemporaryUploadedFile:
    for _name, fault in refused(request):
        raise fault
    found = request.FILES.getlist("file")
    if len(found) != 1:
        raise Fault("one_file")
    return cast(TemporaryUploadedFile, found[0])  # FILE_UPLOAD_HANDLERS knows no other kind


# A song


@router.get(
    "/separate/{uuid:task_id}",
    response={200: schemas.Task, **problems_of(401, 404, 429)},
    url_name="task",
    summary="How a song is",
    tags=["Songs"],
)
def task(request: HttpRequest, task_id: uuid.UUID) -> schemas.Task:
    return task_of(request, access.job_or_404(request, task_id))


@router.delete(
    "/separate/{uuid:task_id}",
    response={204: None, **problems_of(401, 403, 404, 429)},
    url_name="task",
    summary="Delete a song and its stems",
    tags=["Songs"],
)
def delete(request: HttpRequest, task_id: uuid.UUID) -> Any:
    """For good, in whatever state it is."""
    jobs.remove(access.job_or_404(request, task_id))
    return HttpResponse(status=204)


@router.post(
    "/separate/{uuid:task_id}/cancel",
    response={200: schemas.Task, **problems_of(401, 403, 404, 409, 429)},
    url_name="cancel",
    summary="Stop a song that waits or runs",
    tags=["Songs"],
)
def cancel(request: HttpRequest, task_id: uuid.UUID) -> schemas.Task:
    grant = access.song_or_404(request, task_id)
    job = grant.job
    cancelled = jobs.cancel(job, grant.by)
    job.refresh_from_db()
    if not cancelled:
        raise Fault("already_over", status=status_of(job))
    return task_of(request, job)


@router.post(
    "/separate/{uuid:task_id}/retry",
    response={202: schemas.Task, **problems_of(401, 403, 404, 409, 410, 422, 429, 503)},
    url_name="retry",
    summary="Try a failed or cancelled song again",
    tags=["Songs"],
)
def retry(request: HttpRequest, task_id: uuid.UUID) -> Any:
    grant = access.song_or_404(request, task_id)
    job = grant.job
    if job.state not in (Job.State.FAILED, Job.State.CANCELLED):
        raise Fault("not_over", status=status_of(job))
    if not jobs.retry(job, access.counted_owner(request, grant)):
        job.refresh_from_db()
        raise Fault("not_over", status=status_of(job))
    tasks.wake()
    job.refresh_from_db()
    return Answer(202, task_of(request, job))


@router.get(
    "/separate/{uuid:task_id}/progress",
    response={**problems_of(401, 404, 429, 503)},
    openapi_extra=binary(
        "text/event-stream", {204: "The end was heard already (Last-Event-ID)."}, EVENT
    ),
    url_name="progress",
    summary="Follow a song",
    tags=["Songs"],
)
def progress(request: HttpRequest, task_id: uuid.UUID) -> HttpResponseBase:
    """Server-sent events: `data:` holds what `Progress` describes, whenever it changes; the stream
    closes when the song ends, and after a quarter of an hour. `Last-Event-ID` goes on where an
    earlier stream broke off."""
    return progress_stream(request, access.job_or_404(request, task_id))


# Downloads


@router.get(
    "/separate/{uuid:task_id}/stems/{slug:stem_name}",
    response={**problems_of(401, 404, 409, 410, 416, 422, 429, 503)},
    openapi_extra=binary("audio/*", {206: "A range of it.", 304: "Not changed."}),
    url_name="stem",
    summary="Download a stem",
    tags=["Downloads"],
)
def stem(
    request: HttpRequest, task_id: uuid.UUID, stem_name: str, wanted: Wanted
) -> HttpResponseBase:
    """In any format, whole or a time range; `Range` and `If-None-Match` work."""
    job = _finished(request, task_id)
    found = job.stems.select_related("job__upload").filter(name=stem_name).first()
    if found is None:
        raise Http404
    span = downloads.span_of(job, wanted.start, wanted.stop)
    download = downloads.of_stem(found, *_format(wanted), span)
    return sending.send(request, download, attach=True)


@router.get(
    "/separate/{uuid:task_id}/mixdown",
    response={**problems_of(401, 404, 409, 410, 416, 422, 429, 503)},
    openapi_extra=binary("audio/*", {206: "A range of it.", 304: "Not changed."}),
    url_name="mixdown",
    summary="Download a mix",
    tags=["Downloads"],
)
def mixdown(
    request: HttpRequest,
    task_id: uuid.UUID,
    mix: Annotated[
        str,
        Query(
            "",
            description="`NAME:VOLUME:PAN[:m][s],…,master:VOLUME`; empty for all stems as they "
            "are. Volume 0–100 (80 leaves a level as it is), pan −100–100, m mutes, s is solo.",
        ),
    ],
    wanted: Wanted,
) -> HttpResponseBase:
    """The stems mixed anew: karaoke, for example, is `mix=vocals:80:0:m`."""
    job = _finished(request, task_id)
    span = downloads.span_of(job, wanted.start, wanted.stop)
    download = downloads.of_mix(job, mix, span, *_format(wanted))
    return sending.send(request, download, attach=True)


@router.get(
    "/separate/{uuid:task_id}/archive",
    response={**problems_of(401, 404, 409, 410, 422, 429, 503)},
    openapi_extra=binary("application/zip"),
    url_name="archive",
    summary="Download all stems as a ZIP",
    tags=["Downloads"],
)
def archive(request: HttpRequest, task_id: uuid.UUID, wanted: Wanted) -> HttpResponseBase:
    job = _finished(request, task_id)
    span = downloads.span_of(job, wanted.start, wanted.stop)
    return sending.send_archive(request, job, *_format(wanted), span)


def _finished(request: HttpRequest, task_id: uuid.UUID) -> Job:
    job = access.job_or_404(request, task_id)
    if job.state != Job.State.DONE:
        raise Fault("not_done", status=status_of(job))
    if job.is_expired:
        raise Fault("result_gone")
    return job


def _format(wanted: schemas.Wanted) -> tuple[Format, int]:
    format = FORMATS[wanted.format]
    if wanted.bitrate is None:
        return format, max(format.bit_rates, default=0)
    if wanted.bitrate not in format.bit_rates:
        allowed = ", ".join(map(str, format.bit_rates)) or "–"
        raise Fault("bad_option", option="bitrate", allowed=allowed)
    return format, wanted.bitrate


# Lists


@router.get(
    "/jobs",
    response={200: schemas.Tasks, **problems_of(401, 404, 422, 429)},
    url_name="jobs",
    summary="Your songs, the newest first",
    tags=["Lists"],
)
def list_jobs(
    request: HttpRequest,
    status: Annotated[
        list[schemas.Status],
        Query(
            default_factory=list,
            description="Of the songs themselves: one that waits for the run of another is "
            "`queued` here, while its `status` is that of the run.",
        ),
    ],
    model: Annotated[str, Query("", max_length=100, pattern=r"^[^\x00]*$")],
    page: Annotated[int, Query(1, ge=1, le=1_000_000)],
    per_page: Annotated[int, Query(20, ge=1, le=MOST_A_PAGE)],
) -> schemas.Tasks:
    found = access.visible_jobs(request).prefetch_related("stems")
    if status:
        found = found.filter(state__in=[s for s, name in webhooks.STATUS.items() if name in status])
    if model:
        found = found.filter(model=model)
    pages = Paginator(found, per_page)
    if page > pages.num_pages:
        raise Http404
    shown = pages.page(page)

    def address(number: int) -> str:
        query = request.GET.copy()
        query["page"] = str(number)
        return request.build_absolute_uri(f"{reverse('api:jobs')}?{query.urlencode()}")

    return schemas.Tasks(
        items=[task_of(request, job) for job in shown],
        count=pages.count,
        page=page,
        pages=pages.num_pages,
        next=address(page + 1) if shown.has_next() else None,
        previous=address(page - 1) if shown.has_previous() else None,
    )


@router.get(
    "/models",
    response={200: schemas.Models, **problems_of(401, 429)},
    auth=[*auth.KNOWN, auth.reader],
    openapi_extra=OPEN,
    url_name="models",
    summary="The models that are installed",
    tags=["Lists"],
)
def models(request: HttpRequest) -> schemas.Models:
    return schemas.Models(
        items=[
            schemas.Model(
                name=model.name,
                sources=list(model.sources),
                about=str(ABOUT_MODELS.get(model.name, ADDED_MODEL)),
                passes=model.passes,
                segment=float(model.segment),
                is_default=model.name == settings.DEFAULT_MODEL,
            )
            for model in list_models(settings.MODEL_DIR)
        ]
    )
