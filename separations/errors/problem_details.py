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
    if "limit" in fault.params:
        more = {"limit": fault.params["limit"], **more}
    return {**described(fault.code, status, user_messages.sentence(fault)), **more}


def described(code: str, status: int, detail: str) -> dict[str, Any]:
    return {
        "type": f"{PAGE}#{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "code": code,
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
    if "limit" in details:
        answer.limit = details["limit"]  # type: ignore[attr-defined]
    if details["status"] == 401:
        answer.headers["WWW-Authenticate"] = 'Bearer realm="Stemsite"'
    answer.headers["Cache-Control"] = "no-store"
    return answer


def set_retry_after(answer: HttpResponse, fault: Fault) -> None:
    """Set Retry-After where the fault knows how long to wait."""
    if wait := user_messages.wait_of(fault.params):
        answer.headers["Retry-After"] = str(wait)
