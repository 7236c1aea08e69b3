"""What watches the site from outside: request ids, counts of answers, probes and metrics.

Middleware alone, without addresses in the URL configuration: a probe comes by an IP address for a
host and by plain http, has no session and asks often. So it is answered before anything looks at
that, but behind the protective headers.
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

from separations import readiness, scrape
from separations.meters import Meters, meters
from stemsite.logs import request_id

Answer = Callable[[HttpRequest], HttpResponseBase]
PLAIN = "text/plain; charset=utf-8"


# Request ids

# Hexadecimal numbers and UUIDs, and whatever else a proxy may write that is nobody's address.
WELL_FORMED = re.compile(r"[0-9A-Za-z_-]{16,64}")


def request_ids(get_response: Answer) -> Answer:
    """Give every request an id: in its answer, and in each line that is logged of it.

    A proxy that is trusted may have given it one; what a visitor says is not taken over. It stays
    until the thread's next request, for what is logged while the answer is sent; see
    `web_worker.Worker.handle`.
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


def counted(get_response: Answer) -> Answer:
    """Count each answer, by a few labels that no visitor can add to."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        counts = meters()
        if counts is None:
            return get_response(request)
        began = time.perf_counter()
        counts.in_flight.inc()
        try:
            response = get_response(request)
        except BaseException:
            counts.in_flight.dec()
            raise
        # Called when the last of it is sent, or nobody reads it any more.
        response._resource_closers.append(counts.in_flight.dec)  # type: ignore[attr-defined]
        _count(counts, request, response, time.perf_counter() - began)
        return response

    return middleware


def _count(
    counts: Meters, request: HttpRequest, response: HttpResponseBase, seconds: float
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
    """The process answers, whatever else is the matter."""
    return HttpResponse("ok\n", content_type=PLAIN)


def readyz() -> HttpResponse:
    """Whether a song could be taken and separated now, and else what is in the way."""
    found = readiness.checks()
    ready = readiness.is_ready(found)
    answer = {"status": "ready" if ready else "not ready", "checks": found}
    if ready:
        return JsonResponse(answer)
    return JsonResponse(answer, status=503, headers={"Retry-After": "10"})


def metrics(request: HttpRequest) -> HttpResponse:
    """The site's metrics, for who knows METRICS_TOKEN."""
    given = request.headers.get("Authorization", "")
    wanted = f"Bearer {settings.METRICS_TOKEN}"
    if not hmac.compare_digest(given.encode(), wanted.encode()):
        headers = {"WWW-Authenticate": "Bearer"}
        return HttpResponse("", status=401, content_type=PLAIN, headers=headers)
    return HttpResponse(scrape.text(), content_type=CONTENT_TYPE_LATEST)


PROBES = ("/healthz", "/readyz", "/metrics")


def probes(get_response: Answer) -> Answer:
    """Answer the probes; hand on everything else."""

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
        # Not by Django, as an error for each probe that finds the site not ready.
        response._has_been_logged = True  # type: ignore[attr-defined]
        return response

    return middleware
