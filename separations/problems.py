"""Errors as programs read them: problem details (RFC 9457), the one shape they have."""

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse

from separations import sentences
from separations.faults import Fault

CONTENT_TYPE = "application/problem+json"
PAGE = "/api/problems"  # explains every code; what `type` leads to
API = "/api/"


def is_for_programs(request: HttpRequest) -> bool:
    """Whether an error of this request is to be a problem, and no page."""
    return request.path_info.startswith(API)


def problem(fault: Fault, **more: object) -> dict[str, Any]:
    """What is told of a fault, in the active language: `code` is what programs go by."""
    status = sentences.status(fault)
    return {
        "type": f"{PAGE}#{fault.code}",
        "title": fault.code.replace("_", " ").capitalize(),
        "status": status,
        "detail": sentences.sentence(fault),
        "code": fault.code,
        **more,
    }


def response(fault: Fault, **more: object) -> JsonResponse:
    """A problem as an answer, which no cache keeps; says when to ask again where that is known."""
    told = problem(fault, **more)
    answer = JsonResponse(told, status=told["status"], content_type=CONTENT_TYPE)
    say_when(answer, fault)
    if told["status"] == 401:
        answer.headers["WWW-Authenticate"] = 'Bearer realm="Stemsite"'
    answer.headers["Cache-Control"] = "no-store"
    return answer


def say_when(answer: HttpResponse, fault: Fault) -> None:
    """Put into an answer when to ask again, where that is known."""
    if wait := fault.params.get("wait"):
        answer.headers["Retry-After"] = str(wait)
