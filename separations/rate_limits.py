"""How often, and how many at once: marks on views, and the one place that holds them to it.

`@limited("upload")` says what a view is counted as; `Limits` refuses before the body is read (so it
stands before the CSRF check, which reads it). Each client has its counts, and each account too.
"""

import logging
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, TypeVar

from django.conf import settings
from django.db import OperationalError, connection
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.http.response import HttpResponseBase
from django.shortcuts import render

from separations import buckets, problems, sentences
from separations.clients import client
from separations.faults import Fault

logger = logging.getLogger(__name__)
View = TypeVar("View", bound=Callable[..., Any])
KNOWN = "known"  # the cookie of a browser that has logged in to an account before
LOG_INS = ("accounts:login", "accounts:signup", "admin:login")
SMALL = 64 * 1024  # bytes of the body of a form without files
SAFE = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Kind:
    """safe: GET counts as well. share: of all threads that one client may hold, 0 for no limit.
    all: the share that all clients may hold together, 0 for no limit of their own."""

    safe: bool = False
    share: float = 0.0
    all: float = 0.0


# Those without a setting of their own in RATE_LIMITS are limited in number at once alone.
KINDS = {
    "upload": Kind(share=1 / 4),
    "login": Kind(),
    "signup": Kind(),
    "reset": Kind(),
    "action": Kind(),
    "download": Kind(safe=True, share=1 / 4),
    "listen": Kind(safe=True, share=1 / 4),
    "api": Kind(safe=True),
    "events": Kind(safe=True, share=1 / 8, all=1 / 4),  # streams last for minutes
}
ALL_LONG = 3 / 4  # of all threads; the rest is for pages


def limited(kind: str, **of_methods: str) -> Callable[[View], View]:
    """Mark a view, or by `method_decorator(limited(kind), name="dispatch")` a class of views.

    of_methods: other kinds for some methods, such as `GET="api"`.
    """
    if not {kind, *of_methods.values()} <= set(KINDS):
        raise ValueError(kind)

    def mark(view: View) -> View:
        view.limited = {"": kind, **of_methods}  # type: ignore[attr-defined]
        return view

    return mark


def take(kind: str, request: HttpRequest) -> None:
    """Count a request.

    Raises:
        Fault: too_many_requests.
    """
    _take(_per_asker(kind, request))


def _per_asker(kind: str, request: HttpRequest) -> list[buckets.Withdrawal]:
    count, seconds = settings.RATE_LIMITS.get(kind, (0, 0))
    who = []
    if found := client(request):
        who.append(f"client {found}")
    if request.user.is_authenticated:
        who.append(f"user {request.user.pk}")
    return [buckets.Withdrawal(kind, each, count, seconds) for each in who]


def _take(withdrawals: list[buckets.Withdrawal]) -> None:
    if wait := buckets.take(withdrawals):
        raise Fault("too_many_requests", wait=wait, minutes=-(-wait // 60))


# Passwords


def _take_log_in(request: HttpRequest) -> None:
    """Count a log-in by the name as well, so that many who guess together are slowed.

    Browsers that have logged in to the account before are not: a stranger who guesses does not
    lock its owner out of them. (OWASP's "device cookies".)
    """
    take("login", request)
    name = _name_key(request.POST.get("username", ""))
    if name and _known_as(request) != name:
        _take([buckets.Withdrawal("name", name, *settings.RATE_LIMITS["name"])])


def _name_key(name: str) -> str:
    folded = unicodedata.normalize("NFKC", name).strip().casefold()
    return buckets.name_hash(f"account {folded}") if folded else ""


def _known_as(request: HttpRequest) -> str:
    return str(request.get_signed_cookie(KNOWN, default="", salt=KNOWN))


def _remember(request: HttpRequest, response: HttpResponseBase) -> None:
    response.set_signed_cookie(
        KNOWN,
        _name_key(request.user.get_username()),
        salt=KNOWN,
        max_age=settings.SESSION_COOKIE_AGE,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )


# At once


class Slots:
    """Threads of this process that are busy with what takes long, by client and in all."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._held: Counter[tuple[str, str]] = Counter()

    def enter(self, kind: str, who: str) -> Callable[[], None]:
        """Hold a slot; returns what gives it back.

        Raises:
            Fault: too_many_at_once for this client, busy when all slots are held.
        """
        key = (kind, who)
        threads, most = settings.WEB_THREADS, KINDS[kind].all
        with self._lock:
            of_kind = sum(n for (each, _who), n in self._held.items() if each == kind)
            if most and of_kind >= max(2, int(threads * most)):
                raise Fault("busy", wait=10)
            if self._held[key] >= max(2, int(threads * KINDS[kind].share)):
                raise Fault("too_many_at_once", wait=5)
            if self._held.total() >= max(2, int(threads * ALL_LONG)):
                raise Fault("busy", wait=10)
            self._held[key] += 1
        return partial(self._leave, key)

    def _leave(self, key: tuple[str, str]) -> None:
        with self._lock:
            self._held[key] -= 1
            if self._held[key] <= 0:
                del self._held[key]


slots = Slots()


# The place


class Limits:
    """Middleware: after those that know session and user, before the check of the CSRF token."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self._get_response(request)
        kind, leave = request.__dict__.get("_limits", ("", None))
        if leave is not None and response.streaming:
            # What is sent is also over when the reader goes away before it has begun.
            response._resource_closers.append(leave)  # type: ignore[attr-defined]
        elif leave is not None:
            leave()
        view = request.resolver_match and request.resolver_match.view_name
        if kind and view in LOG_INS and request.user.is_authenticated:
            _remember(request, response)
        return response

    def process_view(
        self,
        request: HttpRequest,
        view_func: Callable[..., Any],
        view_args: tuple[Any, ...],
        view_kwargs: dict[str, Any],
    ) -> HttpResponseBase | None:
        match = request.resolver_match
        in_admin = match is not None and match.view_name == "admin:login"  # no view of ours
        kinds: dict[str, str] = getattr(view_func, "limited", {})
        kind = "login" if in_admin else kinds.get(request.method or "", kinds.get("", ""))
        if request.method not in SAFE and (fault := _unfit(request, kind)):
            return refusal(request, fault)
        if not kind or (request.method in SAFE and not KINDS[kind].safe):
            return None
        leave = None
        try:
            if KINDS[kind].share:
                leave = slots.enter(kind, client(request))
            request.__dict__["_limits"] = (kind, leave)
            if kind == "login":
                _take_log_in(request)
            else:
                take(kind, request)
        except Fault as fault:
            return refusal(request, fault)
        except UnreadablePostError:
            return HttpResponse(status=400)
        return None

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        return refusal(request, fault) if (fault := overloaded(exception)) else None


def overloaded(error: BaseException | None) -> Fault | None:
    """What to tell when the database had no room for a request: others write, or it restarts."""
    if not isinstance(error, OperationalError):
        return None
    if connection.vendor == "sqlite" and "locked" not in str(error):
        return None  # a table that is missing, a disk that fails: waiting does not help
    logger.error("A request was told to come again: %s", error)
    return Fault("busy", wait=10)


def _unfit(request: HttpRequest, kind: str) -> Fault | None:
    """What is wrong with a request before any of its body is read.

    Another site's forms must not use up what this visitor's address may do; and whatever a view
    does with files, all of a body is on the disk before it is asked.
    """
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        return Fault("stale_form")
    length = str(request.META.get("CONTENT_LENGTH") or "0")
    if kind != "upload" and (not length.isdecimal() or int(length) > SMALL):
        return Fault("form_too_large")
    return None


def refusal(request: HttpRequest, fault: Fault) -> HttpResponse:
    """The answer to who has to wait: as a page, beside the form's field, or in plain."""
    if problems.is_for_programs(request):
        return problems.response(fault)
    text, status = sentences.sentence(fault), sentences.status(fault)
    if getattr(request, "htmx", None):
        context = {"errors": [("", text)]}
        response = render(request, "separations/_errors.html", context, status=status)
    elif "text/html" in request.headers.get("Accept", ""):
        response = render(request, "separations/wait.html", {"text": text}, status=status)
    else:
        response = HttpResponse(text, status=status, content_type="text/plain")
    problems.say_when(response, fault)
    response.headers["Cache-Control"] = "no-store"
    return response
