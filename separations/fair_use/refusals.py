"""Answers to requests that a limit or an outage refuses: a page, a partial, text or a problem."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from separations.errors import database_outage, problem_details, user_messages
from separations.errors.fault import Fault


def outage_fault(error: BaseException | None) -> Fault | None:
    """The fault for an error of the database, logged; None for other errors."""
    fault = database_outage.outage(error)
    if fault is not None and error is not None:
        database_outage.log.error(fault, error)
    return fault


def outage_response(request: HttpRequest, fault: Fault) -> HttpResponse:
    """The answer to an outage. `outage_fault` logged it, so Django must not for each request."""
    response = refuse(request, fault)
    response._has_been_logged = True  # type: ignore[attr-defined]
    return response


def refuse(request: HttpRequest, fault: Fault) -> HttpResponse:
    """The answer to a request that has to wait: a page, a partial for htmx, or plain text."""
    if problem_details.is_api_request(request):
        return problem_details.response(fault)
    text, status = user_messages.sentence(fault), user_messages.status(fault)
    if getattr(request, "htmx", None):
        context = {"errors": [("", text)]}
        response = render(request, "separations/_errors.html", context, status=status)
    elif "text/html" in request.headers.get("Accept", ""):
        response = render(request, "separations/try_later.html", {"text": text}, status=status)
    else:
        response = HttpResponse(text, status=status, content_type="text/plain")
    problem_details.set_retry_after(response, fault)
    response.headers["Cache-Control"] = "no-store"
    return response
