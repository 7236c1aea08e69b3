"""Error responses of the API: problem details (RFC 9457)."""

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse

from separations.errors import user_messages
from separations.errors.fault import Fault

CONTENT_TYPE = "application/problem+json"
PAGE = "/api/problems"  # explains every code; `type` links to it
API = "/api/"


def is_api_request(request: HttpRequest) -> bool:
    """Whether an error of this request becomes problem details, not a page."""
    return request.path_info.startswith(API)


def problem(fault: Fault, **more: object) -> dict[str, Any]:
    """The problem details of a fault, in the active language. Programs use `code`."""
    status = user_messages.status(fault)
    return {
        "type": f"{PAGE}#{fault.code}",
        "title": fault.code.replace("_", " ").capitalize(),
        "status": status,
        "detail": user_messages.sentence(fault),
        "code": fault.code,
        **more,
    }


def response(fault: Fault, **more: object) -> JsonResponse:
    """A fault as a response that no cache stores, with Retry-After where the wait is known."""
    details = problem(fault, **more)
    answer = JsonResponse(
        details,
        status=details["status"],
        content_type=CONTENT_TYPE,
        json_dumps_params={"allow_nan": False},
    )
    set_retry_after(answer, fault)
    if details["status"] == 401:
        answer.headers["WWW-Authenticate"] = 'Bearer realm="Stemsite"'
    answer.headers["Cache-Control"] = "no-store"
    return answer


def set_retry_after(answer: HttpResponse, fault: Fault) -> None:
    """Set Retry-After where the fault knows how long to wait."""
    if wait := fault.params.get("wait"):
        answer.headers["Retry-After"] = str(wait)
