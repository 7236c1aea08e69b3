"""Middleware for monitoring: request ids, counts of responses, probes and metrics.

No URL patterns: a probe comes with an IP address as its host, by plain http, without a session and
often. So it is answered before other middleware checks those, but behind the security headers.
"""

import hmac
import re
import time
import uuid
from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, JsonResponse
from django.http.response import HttpResponseBase
from prometheus_client import CONTENT_TYPE_LATEST

from separations.logs.formatter import request_id
from separations.monitoring import health, prometheus
from separations.monitoring.registry import ProcessMetrics, process_metrics

Answer = Callable[[HttpRequest], HttpResponseBase]
PLAIN = "text/plain; charset=utf-8"


# Request ids

# Hexadecimal numbers, UUIDs and the like: nothing that could be a client address.
WELL_FORMED = re.compile(r"[0-9A-Za-z_-]{16,64}")


def request_ids(get_response: Answer) -> Answer:
    """Give every request an id, for its response and each line that is logged about it.

    A trusted proxy may have set one; a client's own is ignored. It stays until the thread's next
    request, for what is logged while the response is sent: see `gunicorn_worker.Worker.handle`.
    """

    def middleware(request: HttpRequest) -> HttpResponseBase:
        given = request.META.get("HTTP_X_REQUEST_ID", "") if settings.TRUSTED_PROXIES else ""
        own = given if WELL_FORMED.fullmatch(given) else uuid.uuid4().hex
        request_id.set(own)
        response = get_response(request)
        response.headers["X-Request-ID"] = own
        return response

    return middleware


# Counts

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def count_requests(get_response: Answer) -> Answer:
    """Count each response, with few labels, whose values clients cannot choose."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        counts = process_metrics()
        if counts is None:
            return get_response(request)
        began = time.perf_counter()
        counts.in_flight.inc()
        try:
            response = get_response(request)
        except BaseException:
            counts.in_flight.dec()
            raise
        # Called when its last byte is sent, or the client is gone.
        response._resource_closers.append(counts.in_flight.dec)  # type: ignore[attr-defined]
        _count(counts, request, response, time.perf_counter() - began)
        return response

    return middleware


def _count(
    counts: ProcessMetrics, request: HttpRequest, response: HttpResponseBase, seconds: float
) -> None:
    route = _route(request)
    method = request.method if request.method in METHODS else "other"
    counts.requests.labels(method, route, response.status_code).inc()
    counts.request_seconds.labels(route).observe(seconds)


def _route(request: HttpRequest) -> str:
    match = request.resolver_match
    if match is not None:
        return "admin/" if match.app_name == "admin" else f"/{match.route}"
    if request.path_info in PROBES:
        return request.path_info
    return "static" if request.path_info.startswith(settings.STATIC_URL) else "none"


# Probes


def healthz() -> HttpResponse:
    """Liveness: the process answers."""
    return HttpResponse("ok\n", content_type=PLAIN)


def readyz() -> HttpResponse:
    """Readiness: whether a song could be accepted and separated now, and what prevents it."""
    found = health.checks()
    ready = health.is_ready(found)
    answer = {"status": "ready" if ready else "not ready", "checks": found}
    if ready:
        return JsonResponse(answer)
    return JsonResponse(answer, status=503, headers={"Retry-After": "10"})


def metrics(request: HttpRequest) -> HttpResponse:
    """The site's metrics, for clients that send METRICS_TOKEN."""
    given = request.headers.get("Authorization", "")
    wanted = f"Bearer {settings.METRICS_TOKEN}"
    if not hmac.compare_digest(given.encode(), wanted.encode()):
        headers = {"WWW-Authenticate": "Bearer"}
        return HttpResponse("", status=401, content_type=PLAIN, headers=headers)
    return HttpResponse(prometheus.text(), content_type=CONTENT_TYPE_LATEST)


PROBES = ("/healthz", "/readyz", "/metrics")


def probes(get_response: Answer) -> Answer:
    """Answer the probes; pass on all other requests."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        path = request.path_info
        if path not in PROBES or (path == "/metrics" and not settings.METRICS_TOKEN):
            return get_response(request)
        if request.method not in ("GET", "HEAD"):
            response: HttpResponse = HttpResponseNotAllowed(("GET", "HEAD"), content_type=PLAIN)
        elif path == "/metrics":
            response = metrics(request)
        else:
            response = healthz() if path == "/healthz" else readyz()
        response.headers["Cache-Control"] = "no-store"
        response.headers["Content-Length"] = str(len(response.content))
        # Else Django logs an error for each probe that finds the site not ready.
        response._has_been_logged = True  # type: ignore[attr-defined]
        return response

    return middleware
