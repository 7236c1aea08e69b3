"""The API's downloads: a stem, a mix, all stems."""

import uuid
from typing import Annotated

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.cache import patch_vary_headers
from ninja import Query, Router

from separations.access import permissions
from separations.api import schemas
from separations.api.descriptions import BYTES
from separations.api.openapi import SOUND, file_responses, problem_responses
from separations.api.serializers import status_name
from separations.audio.encoding.formats import Format, read_format, read_rate
from separations.audio.info import COVER_TYPES
from separations.audio.mixing.gain_laws import FARTHEST, LOUDEST, UNITY
from separations.delivery import downloads, responses, time_range
from separations.errors.fault import Fault
from separations.models import Job

COVER_SECONDS = 86400  # for which clients may keep it
router = Router()
Wanted = Annotated[schemas.Wanted, Query(...)]


@router.get(
    "/separate/{uuid:task_id}/stems/{slug:stem_name}",
    response={**problem_responses(401, 404, 409, 410, 416, 422, 429, 503)},
    openapi_extra=file_responses("The stem.", *SOUND),
    operation_id="downloadStem",
    url_name="stem",
    summary="Download a stem",
    tags=["Downloads"],
)
def stem(
    request: HttpRequest, task_id: uuid.UUID, stem_name: str, wanted: Wanted
) -> HttpResponseBase:
    """In any format, whole or a time range; `Range` and `If-None-Match` work."""
    job = _finished(request, task_id)
    found = permissions.stem_or_404(job, stem_name)
    span = time_range.span_of(job, wanted.start, wanted.stop)
    format, bit_rate, rate = _format(wanted, job)
    download = downloads.of_stem(found, format, bit_rate, span, rate)
    return _as_accepted(request, responses.send(request, download, attach=True))


@router.get(
    "/separate/{uuid:task_id}/mixdown",
    response={**problem_responses(401, 404, 409, 410, 416, 422, 429, 503)},
    openapi_extra=file_responses("The mix.", *SOUND),
    operation_id="downloadMix",
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
            f"are. Volume 0–{LOUDEST} ({UNITY} leaves a level as it is), "
            f"pan −{FARTHEST}–{FARTHEST}, m mutes, s is solo.",
        ),
    ],
    wanted: Wanted,
) -> HttpResponseBase:
    """The stems mixed anew: karaoke, for example, is `mix=vocals:80:0:m`."""
    job = _finished(request, task_id)
    span = time_range.span_of(job, wanted.start, wanted.stop)
    download = downloads.of_mix(job, mix, span, *_format(wanted, job))
    return _as_accepted(request, responses.send(request, download, attach=True))


@router.get(
    "/separate/{uuid:task_id}/archive",
    response={**problem_responses(401, 404, 409, 410, 416, 422, 429, 503)},
    openapi_extra=file_responses("The ZIP.", "application/zip"),
    operation_id="downloadArchive",
    url_name="archive",
    summary="Download all stems as a ZIP",
    tags=["Downloads"],
)
def archive(request: HttpRequest, task_id: uuid.UUID, wanted: Wanted) -> HttpResponseBase:
    """All of one format, whole or a time range."""
    job = _finished(request, task_id)
    span = time_range.span_of(job, wanted.start, wanted.stop)
    format, bit_rate, rate = _format(wanted, job)
    response = responses.send_archive(request, job, format, bit_rate, span, rate)
    return _as_accepted(request, response)


def _as_accepted(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """Call a file bytes for clients that take nothing else, as some generated ones do."""
    patch_vary_headers(response, ["Accept"])
    kind = response.headers.get("Content-Type", "")
    if kind and not request.accepts(kind) and request.accepts(BYTES):
        response.headers["Content-Type"] = BYTES
    return response


@router.get(
    "/separate/{uuid:task_id}/cover",
    response={**problem_responses(401, 404, 416, 429, 503)},
    openapi_extra=file_responses("The cover.", *COVER_TYPES.values()),
    operation_id="downloadCover",
    url_name="cover",
    summary="Download the cover",
    tags=["Downloads"],
)
def cover(request: HttpRequest, task_id: uuid.UUID) -> HttpResponseBase:
    """The picture in the file's tags, JPEG or PNG; 404 where there is none."""
    return responses.send_cover(request, permissions.job_or_404(request, task_id), COVER_SECONDS)


def _finished(request: HttpRequest, task_id: uuid.UUID) -> Job:
    job = permissions.job_or_404(request, task_id)
    if job.state != Job.State.DONE:
        raise Fault("not_done", status=status_name(job))
    if job.is_expired:
        raise Fault("result_gone")
    return job


def _format(wanted: schemas.Wanted, job: Job) -> tuple[Format, int, int]:
    """Format, bit rate and sample rate."""
    format, bit_rate = read_format(wanted.format, wanted.bitrate)
    return format, bit_rate, read_rate(wanted.sample_rate, job.upload.sample_rate, format)
