"""The API's songs: send, follow, cancel, retry and delete one."""

import uuid
from functools import partial
from typing import Annotated, Any, cast

from django.conf import settings
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from ninja import File, Form, Header, Router
from ninja import Status as Answer
from ninja.files import UploadedFile

from separations.access import permissions, token_auth
from separations.api import auth, schemas
from separations.api.openapi import EVENT_STREAM, OPEN, located, problem_responses
from separations.api.serializers import serialize_new_task, serialize_task, status_name
from separations.api.sse import progress_stream
from separations.engine.options import BY_SENDER
from separations.errors.fault import Fault
from separations.jobs import lifecycle
from separations.models import Job, Owner
from separations.monitoring import fault_counts
from separations.uploads import song_files, submission
from separations.uploads.handlers import refused_files
from separations.webhooks import events
from separations.worker import tasks

router = Router()
Key = Annotated[
    str | None,
    Header(
        None,
        alias="Idempotency-Key",
        pattern="^[!-~]{16,200}$",
        description="16 to 200 random characters, new for each song. A request that is sent "
        "again with its key makes no second job. Without a token of your own, each answer to it "
        "holds one for this song alone, and for those that are sent with that token afterwards.",
    ),
]


@router.post(
    "/separate",
    response={
        201: schemas.NewTask,
        202: schemas.NewTask,
        **problem_responses(400, 401, 403, 413, 415, 422, 429, 503, 507),
    },
    auth=[*auth.IDENTIFIED, auth.anonymous_allowed],
    openapi_extra={**OPEN, **located(201, 202)},
    operation_id="createSeparation",
    url_name="separate",
    summary="Send a song",
    tags=["Songs"],
)
@fault_counts.counting_refusals()
def separate(
    request: HttpRequest,
    response: HttpResponse,
    asked: Annotated[schemas.Asked, Form(...)],
    file: Annotated[UploadedFile, File(..., description="The song.")],
    idempotency_key: Key,
) -> Any:
    """Queue the separation of a song, or get at once what was made of the same one before.

    202 while it waits or runs; 201 when it is over, as there is nothing to wait for. `Location` is
    where it can be followed."""
    key = idempotency_key or ""
    owner, is_new = _owner_or_new(request, key)
    if asked.webhook_url:
        events.check_url(asked.webhook_url)
    chosen = {name: getattr(asked, name) for name in BY_SENDER}
    chosen["model"] = chosen["model"] or settings.DEFAULT_MODEL
    options = lifecycle.site_options(**chosen)
    song = _uploaded_file(request)
    once = None
    if key:
        digest = getattr(song, "sha256", "")
        once = submission.IdempotentRequest.of(
            owner, key, digest, options.as_dict(), asked.webhook_url
        )
    job = submission.submit(
        partial(song_files.accept, song),
        options,
        owner,
        webhook_url=asked.webhook_url,
        once=once,
    )
    tasks.wake()
    token = None
    if is_new:
        token = token_auth.task_token(job) if key else token_auth.visitor_token(owner)
    # An account's stands on its page, and is not for every program that has a token.
    for_visitor = asked.webhook_url and owner.user_id is None
    secret = events.signing_secret(owner) if for_visitor else None
    task = serialize_new_task(request, job, token, secret)
    response.headers["Location"] = task.links.self
    return Answer(202 if job.is_active else 201, task)


def _owner_or_new(request: HttpRequest, key: str) -> tuple[Owner, bool]:
    """The new song's owner, and whether the request came without a token."""
    if request.auth is not True:  # type: ignore[attr-defined]
        return request.auth, False  # type: ignore[attr-defined]
    return token_auth.new_visitor(request, key), True


def _uploaded_file(request: HttpRequest) -> TemporaryUploadedFile:
    for _name, fault in refused_files(request):
        raise fault
    found = request.FILES.getlist("file")
    if len(found) != 1:
        raise Fault("one_file")
    return cast(TemporaryUploadedFile, found[0])  # FILE_UPLOAD_HANDLERS knows no other kind


@router.get(
    "/separate/{uuid:task_id}",
    response={200: schemas.Task, **problem_responses(401, 404, 429)},
    operation_id="getSeparation",
    url_name="task",
    summary="How a song is",
    tags=["Songs"],
)
def task(request: HttpRequest, task_id: uuid.UUID) -> schemas.Task:
    """Its state and progress; once it is completed, its stems; where it failed, why."""
    return serialize_task(request, permissions.job_or_404(request, task_id))


@router.delete(
    "/separate/{uuid:task_id}",
    response={204: None, **problem_responses(401, 403, 404, 429)},
    operation_id="deleteSeparation",
    url_name="task",
    summary="Delete a song and its stems",
    tags=["Songs"],
)
def delete(request: HttpRequest, task_id: uuid.UUID) -> Any:
    """For good, in whatever state it is; a running separation is stopped."""
    lifecycle.remove(permissions.job_or_404(request, task_id))
    return HttpResponse(status=204)


@router.post(
    "/separate/{uuid:task_id}/cancel",
    response={200: schemas.Task, **problem_responses(401, 403, 404, 409, 429)},
    operation_id="cancelSeparation",
    url_name="cancel",
    summary="Stop a song that waits or runs",
    tags=["Songs"],
)
def cancel(request: HttpRequest, task_id: uuid.UUID) -> schemas.Task:
    """What it had made so far is dropped; `retry` begins anew."""
    grant = permissions.song_or_404(request, task_id)
    job = grant.job
    cancelled = lifecycle.cancel(job, grant.actor)
    job.refresh_from_db()
    if not cancelled:
        raise Fault("already_over", status=status_name(job))
    return serialize_task(request, job)


@router.post(
    "/separate/{uuid:task_id}/retry",
    response={
        200: schemas.Task,
        202: schemas.Task,
        **problem_responses(401, 403, 404, 409, 410, 422, 429, 503),
    },
    openapi_extra=located(200, 202),
    operation_id="retrySeparation",
    url_name="retry",
    summary="Try a failed or cancelled song again",
    tags=["Songs"],
)
def retry(request: HttpRequest, response: HttpResponse, task_id: uuid.UUID) -> Any:
    """From the beginning, with the same options. 202 while it waits or runs, 200 when the result
    was there at once."""
    grant = permissions.song_or_404(request, task_id)
    job = grant.job
    if job.state not in (Job.State.FAILED, Job.State.CANCELLED):
        raise Fault("not_over", status=status_name(job))
    if not lifecycle.retry(job, permissions.charge_retry(request, grant)):
        job.refresh_from_db()
        raise Fault("not_over", status=status_name(job))
    tasks.wake()
    job.refresh_from_db()
    task = serialize_task(request, job)
    response.headers["Location"] = task.links.self
    return Answer(202 if job.is_active else 200, task)


@router.get(
    "/separate/{uuid:task_id}/progress",
    response={**problem_responses(401, 404, 429, 503)},
    openapi_extra=EVENT_STREAM,
    operation_id="followSeparation",
    url_name="progress",
    summary="Follow a song",
    tags=["Songs"],
)
def progress(request: HttpRequest, task_id: uuid.UUID) -> HttpResponseBase:
    """Server-sent events: `data` holds what `Progress` describes, whenever it changes; the stream
    closes when the song ends, and after a quarter of an hour. `Last-Event-ID` goes on where an
    earlier stream broke off."""
    return progress_stream(request, permissions.job_or_404(request, task_id))
