"""Progress as server-sent events: one whenever something changes, the last one when the song ends.

An event's id tells its data, so whoever comes again with Last-Event-ID hears of what is new alone.
A stream ends by itself after a while, and when the server stops; clients come back on their own.
"""

import hashlib
import logging
import select
import socket
import time
import uuid
from collections.abc import Iterator

from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from separations.api.schemas import Progress
from separations.api.telling import progress_of
from separations.models import Job
from separations.stopping import stopping

logger = logging.getLogger(__name__)
LOOK_SECONDS = 1.0
KEEP_ALIVE_SECONDS = 5.0  # by which what lies between keeps the connection open
LONGEST_SECONDS = 900.0
COME_AGAIN_MS = 2000


def progress_stream(request: HttpRequest, job: Job) -> HttpResponseBase:
    """The progress of `job` from now on; 204 for who has heard its end already."""
    seen = request.headers.get("Last-Event-ID", "")
    if not job.is_active and seen == _id_of(progress_of(job)):
        return HttpResponse(status=204)  # by which the browser's own client comes no more
    events = _events(job.pk, seen, request.META.get("gunicorn.socket"))
    response = StreamingHttpResponse(events, content_type="text/event-stream")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"  # nginx passes each event on at once
    return response


def _events(job_id: uuid.UUID, seen: str, line: socket.socket | None) -> Iterator[str]:
    """line: the connection to the client, where the server tells it."""
    yield f"retry: {COME_AGAIN_MS}\n\n"
    began = said = time.monotonic()
    while time.monotonic() - began < LONGEST_SECONDS:
        found, ended = _look(job_id)
        if found is not None and (now := _id_of(found)) != seen:
            seen, said = now, time.monotonic()
            yield f"id: {now}\ndata: {found.model_dump_json()}\n\n"
        elif time.monotonic() - said >= KEEP_ALIVE_SECONDS:
            said = time.monotonic()
            yield ": still here\n\n"
        if ended or stopping.wait(LOOK_SECONDS) or _hung_up(line):
            return


def _look(job_id: uuid.UUID) -> tuple[Progress | None, bool]:
    """How far the job is, None where that cannot be told; and whether that is its end."""
    try:
        job = Job.objects.filter(pk=job_id).first()
        return (progress_of(job), not job.is_active) if job else (None, True)
    except DatabaseError as error:
        logger.warning("Job %s: the database did not answer: %s", job_id, error)
        return None, False
    finally:
        connection.close()  # nobody needs it until the next look


def _hung_up(line: socket.socket | None) -> bool:
    """Whether the other side went away. Where the system does not tell, writing will."""
    if line is None or not hasattr(select, "POLLRDHUP"):
        return False
    watch = select.poll()
    watch.register(line.fileno(), select.POLLRDHUP)
    return bool(watch.poll(0))


def _id_of(found: Progress) -> str:
    return hashlib.blake2s(found.model_dump_json().encode(), digest_size=8).hexdigest()
