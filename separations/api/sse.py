"""Progress as server-sent events: one for each change, the last one when the song ends, with the
error if it failed.

An event's id is a hash of its data, so a client that returns with Last-Event-ID gets only what
changed. A stream ends after a while, and when the server stops; clients reconnect by themselves.
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
from separations.api.serializers import current_progress
from separations.models import Job
from separations.monitoring.shutdown import stopping

logger = logging.getLogger(__name__)
POLL_SECONDS = 1.0
KEEP_ALIVE_SECONDS = 5.0  # so that proxies keep the connection open
MAX_STREAM_SECONDS = 900.0
RECONNECT_MS = 2000


def progress_stream(request: HttpRequest, job: Job) -> HttpResponseBase:
    """Stream the progress of `job`; 204 for a client that has seen its end."""
    seen = request.headers.get("Last-Event-ID", "")
    if not job.is_active and seen == _event_id(current_progress(job)):
        return HttpResponse(status=204)  # which tells the browser's client to stop
    events = _events(job.pk, seen, request.META.get("gunicorn.socket"))
    response = StreamingHttpResponse(events, content_type="text/event-stream")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"  # nginx passes each event on at once
    return response


def _events(job_id: uuid.UUID, seen: str, line: socket.socket | None) -> Iterator[str]:
    """line: the connection to the client, if the server passes it on."""
    # A block without data, even of comments alone, makes some clients see an empty event (httpx-sse
    # 0.4). So what is said beside events belongs to the block of the next one.
    yield f"retry: {RECONNECT_MS}\n"
    began = sent_at = time.monotonic()
    while time.monotonic() - began < MAX_STREAM_SECONDS:
        found, ended = _read_progress(job_id)
        if found is not None and (now := _event_id(found)) != seen:
            seen, sent_at = now, time.monotonic()
            yield f"id: {now}\ndata: {found.model_dump_json()}\n\n"
        elif time.monotonic() - sent_at >= KEEP_ALIVE_SECONDS:
            sent_at = time.monotonic()
            yield ": still here\n"
        if ended or stopping.wait(POLL_SECONDS) or _is_disconnected(line):
            return


def _read_progress(job_id: uuid.UUID) -> tuple[Progress | None, bool]:
    """The job's progress, None when it is unknown; and whether the stream ends."""
    try:
        job = Job.objects.filter(pk=job_id).first()
        return (current_progress(job), not job.is_active) if job else (None, True)
    except DatabaseError as error:
        logger.warning("Job %s: the database did not answer: %s", job_id, error)
        return None, False
    finally:
        connection.close()  # not needed until the next reading


def _is_disconnected(line: socket.socket | None) -> bool:
    """Whether the client closed the connection. Without POLLRDHUP, writing fails instead."""
    if line is None or not hasattr(select, "POLLRDHUP"):
        return False
    watch = select.poll()
    watch.register(line.fileno(), select.POLLRDHUP)
    return bool(watch.poll(0))


def _event_id(found: Progress) -> str:
    return hashlib.blake2s(found.model_dump_json().encode(), digest_size=8).hexdigest()
