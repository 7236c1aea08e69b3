"""Error pages: for 400, 404 and 500, and for forms that are turned away."""

import sys
import uuid
from typing import cast

from django.core.exceptions import (
    DisallowedHost,
    RequestDataTooBig,
    TooManyFieldsSent,
    TooManyFilesSent,
)
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from separations.errors import problem_details, user_messages
from separations.errors.body_too_large import BodyTooLarge
from separations.errors.fault import Fault
from separations.fair_use import refusals
from separations.logs.secret_tokens import ShareToken
from separations.monitoring import fault_counts
from separations.uploads.handlers import MAX_FILES, too_large
from separations.web.site_request import SiteRequest


def plain_error(fault: Fault) -> HttpResponse:
    return HttpResponse(
        user_messages.sentence(fault), status=user_messages.status(fault), content_type="text/plain"
    )


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    if problem_details.is_api_request(request):
        return problem_details.response(Fault("not_found"))
    song = request.resolver_match and request.resolver_match.kwargs.get("song")
    # A log-in leads back to a song, but never to a shared one: its address is a secret.
    next_page = request.path if isinstance(song, uuid.UUID) else ""
    context = {"next": next_page, "shared": isinstance(song, ShareToken)}
    return render(request, "separations/not_found.html", context, status=404)


def stale_form(request: HttpRequest, reason: str = "") -> HttpResponse:
    """A form without a CSRF token: left open for days, without cookies, or from another site."""
    return _turned_away(request, Fault("stale_form"))


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Requests that Django itself refuses."""
    faults: dict[type[Exception], Fault] = {
        DisallowedHost: Fault("wrong_host"),
        BodyTooLarge: too_large(),
        RequestDataTooBig: Fault("form_too_large"),
        TooManyFieldsSent: Fault("form_too_large"),
        TooManyFilesSent: Fault("too_many_files", most=MAX_FILES),
    }
    fault = faults.get(type(exception), Fault("bad_request"))
    if isinstance(exception, BodyTooLarge):
        fault_counts.count_refusals([fault])
    return _turned_away(request, fault)


def _turned_away(request: HttpRequest, fault: Fault) -> HttpResponse:
    if problem_details.is_api_request(request):
        return problem_details.response(fault)
    if not hasattr(request, "htmx"):  # an early middleware refused it
        return plain_error(fault)
    sentence, status = user_messages.sentence(fault), user_messages.status(fault)
    if cast(SiteRequest, request).htmx:
        context = {"errors": [("", sentence)]}
        return render(request, "separations/_errors.html", context, status=status)
    page = {"sentence": sentence}
    return render(request, "separations/refused.html", page, status=status)


def broken(request: HttpRequest) -> HttpResponse:
    """Error 500, rendered without database and session: either may be broken."""
    # Errors before the views do not pass through `fair_use.middleware`.
    fault = refusals.outage_fault(sys.exc_info()[1]) or Fault("broken")
    if problem_details.is_api_request(request):
        return problem_details.response(fault)
    sentence = "" if fault.code == "broken" else user_messages.sentence(fault)
    context = {"sentence": sentence}
    response = render(None, "separations/broken.html", context, status=user_messages.status(fault))
    problem_details.set_retry_after(response, fault)
    return response
