"""The middleware that enforces rate limits and limits of long requests at once.

It stands before the CSRF check, which reads the body: a request over a limit costs no more than
its headers.
"""

from collections.abc import Callable
from typing import Any

from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.http.response import HttpResponseBase

from separations.errors import database_outage, problem_details
from separations.errors.fault import Fault
from separations.fair_use import concurrency, login_attempts
from separations.fair_use.client_address import client
from separations.fair_use.rate_limits import KINDS, count_in_batches, count_request, standing
from separations.fair_use.refusals import outage_fault, outage_response, refuse

# Django's own views that try a password, which cannot be marked by `limited`.
ADMIN_PASSWORD_VIEWS = ("admin:login", "admin:password_change")
MAX_FORM_BYTES = 64 * 1024  # of a form without files
SAFE = ("GET", "HEAD", "OPTIONS")
TURNED_AWAY = "Answered 503 in %s, perhaps often: it is said once a minute"


class RateLimitMiddleware:
    """Counts each marked view before it runs, and answers in its place when it is refused."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self._get_response(request)
        leave = request.__dict__.get("_leave")
        if leave is not None and response.streaming:
            # A stream also ends when the reader goes away before it has begun.
            response._resource_closers.append(leave)  # type: ignore[attr-defined]
        elif leave is not None:
            leave()
        login_attempts.finish(request, response)
        if response.status_code == 503:
            _log_rarely(request, response)
        elif problem_details.is_api_request(request):  # a site that is at its limit queries nothing
            _describe_limit(request, response)
        return response

    def process_view(
        self,
        request: HttpRequest,
        view_func: Callable[..., Any],
        view_args: tuple[Any, ...],
        view_kwargs: dict[str, Any],
    ) -> HttpResponseBase | None:
        match = request.resolver_match
        in_admin = match is not None and match.view_name in ADMIN_PASSWORD_VIEWS
        kinds: dict[str, str] = getattr(view_func, "limited", {})
        kind = "login" if in_admin else kinds.get(request.method or "", kinds.get("", ""))
        if request.method not in SAFE and (fault := _early_refusal(request, kind)):
            return refuse(request, fault)
        if not kind or (request.method in SAFE and not KINDS[kind].safe):
            return None
        request.__dict__["_limit"] = kind
        leave = None
        try:
            if KINDS[kind].share:
                leave = concurrency.slots.enter(kind, client(request))
            request.__dict__["_leave"] = leave
            (count_in_batches if KINDS[kind].often else count_request)(kind, request)
            if kind == "login":
                login_attempts.count_attempt(request)
        except Fault as fault:
            return refuse(request, fault)
        except UnreadablePostError:
            return HttpResponse(status=400)
        except DatabaseError as error:
            if (found := outage_fault(error)) is None:
                raise
            # What only reads goes on uncounted while the disk is full.
            if found.code == "cannot_record" and request.method in SAFE:
                return None
            return outage_response(request, found)
        return None

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        return outage_response(request, fault) if (fault := outage_fault(exception)) else None


def _describe_limit(request: HttpRequest, response: HttpResponseBase) -> None:
    """Set the headers of draft-ietf-httpapi-ratelimit-headers-11: the limit of this request, and
    what the client has left of it. A refusal describes the limit that refused it."""
    kind = getattr(response, "limit", request.__dict__.get("_limit"))
    try:
        found = standing(kind, request) if kind else None
    except DatabaseError:  # the answer itself matters more
        return
    if found is None:
        return
    seconds = response.headers.get("Retry-After", found.pace)
    response.headers["RateLimit-Policy"] = f'"{found.kind}";q={found.quota};w={found.window}'
    response.headers["RateLimit"] = f'"{found.kind}";r={found.left};t={seconds}'


def _log_rarely(request: HttpRequest, response: HttpResponseBase) -> None:
    """Log that a view answers 503, once a minute; Django would log each answer."""
    if not getattr(response, "_has_been_logged", False):
        match = request.resolver_match
        database_outage.log.warn(
            f"view {match and match.view_name}", TURNED_AWAY, match and match.view_name
        )
        response._has_been_logged = True  # type: ignore[attr-defined]


def _early_refusal(request: HttpRequest, kind: str) -> Fault | None:
    """The fault of a request that can be refused by its headers.

    Forms on other sites must not use up a visitor's limits, unless the operator lets them use the
    API (CORS_ALLOWED_ORIGINS). And Django writes a whole body to the disk before the view runs, so
    views without uploads take none.
    """
    is_allowed = getattr(request, "from_allowed_origin", False)
    if request.headers.get("Sec-Fetch-Site") == "cross-site" and not is_allowed:
        return Fault("stale_form")
    if "HTTP_TRANSFER_ENCODING" in request.META:
        if kind != "upload":
            return Fault("length_required")
        if request.content_type != "multipart/form-data":
            is_api = problem_details.is_api_request(request)
            return Fault("wrong_content_type" if is_api else "length_required")
    length = str(request.META.get("CONTENT_LENGTH") or "0")
    if kind != "upload" and (not length.isdecimal() or int(length) > MAX_FORM_BYTES):
        return Fault("form_too_large")
    return None
