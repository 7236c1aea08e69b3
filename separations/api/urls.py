"""The API under /api/, its description and its pages."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.db import OperationalError
from django.http import Http404, HttpRequest, HttpResponse, UnreadablePostError
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import URLPattern, path
from django.views.decorators.http import require_safe
from ninja.errors import AuthenticationError, ValidationError
from ninja.openapi.docs import Swagger

from separations import problems, sentences
from separations.api import auth
from separations.api.openapi import Api
from separations.api.routes import router
from separations.faults import Fault
from separations.rate_limits import limited, overloaded
from separations.upload_limit import refused

api = Api(
    title="Stemsite",
    version="1",
    description="Send songs, follow them, fetch their stems. Errors are problem details "
    "(RFC 9457).",
    urls_namespace="api",
    auth=list(auth.KNOWN),
    docs=Swagger({"persistAuthorization": False, "tryItOutEnabled": True}),
)
api.add_router("", router)
# What each address is counted as; see `separations.rate_limits`.
KINDS: dict[str, tuple[str, dict[str, str]]] = {
    "separate": ("upload", {}),
    "task": ("action", {"GET": "api", "HEAD": "api"}),
    "cancel": ("action", {}),
    "retry": ("action", {}),
    "progress": ("events", {}),
    "stem": ("download", {}),
    "mixdown": ("download", {}),
    "archive": ("download", {}),
    "jobs": ("api", {}),
    "models": ("api", {}),
}


@api.exception_handler(Fault)
def fault(request: HttpRequest, exc: Fault) -> HttpResponse:
    return problems.response(exc)


@api.exception_handler(Http404)
def not_found(request: HttpRequest, exc: Http404) -> HttpResponse:
    return problems.response(Fault("not_found"))


@api.exception_handler(AuthenticationError)
def unauthorized(request: HttpRequest, exc: AuthenticationError) -> HttpResponse:
    return problems.response(Fault("unauthorized"))


@api.exception_handler(UnreadablePostError)
def broken_off(request: HttpRequest, exc: UnreadablePostError) -> HttpResponse:
    """Whoever sent it went away, or was too slow."""
    return problems.response(Fault("bad_request"))


@api.exception_handler(OperationalError)
def database_busy(request: HttpRequest, exc: OperationalError) -> HttpResponse:
    if fault := overloaded(exc):
        return problems.response(fault)
    raise exc


@api.exception_handler(ValidationError)
def bad_field(request: HttpRequest, exc: ValidationError) -> HttpResponse:
    """What the schema does not take. A file that was refused on its way in is missing here."""
    for _name, refusal in refused(request):
        return problems.response(refusal)
    errors = [{"field": str(error["loc"][-1]), "message": error["msg"]} for error in exc.errors]
    if request.method == "POST" and request.content_type != "multipart/form-data":
        return problems.response(Fault("wrong_content_type"))
    fields = [error["field"] for error in errors]
    if fields == ["file"]:
        return problems.response(Fault("no_file"))
    if fields == ["Idempotency-Key"]:
        return problems.response(Fault("bad_idempotency_key"))
    return problems.response(Fault("bad_field", fields=", ".join(fields)), errors=errors)


@require_safe
def problem_page(request: HttpRequest) -> HttpResponse:
    """What the codes of problems mean."""
    codes = [
        (code, status, str(text).replace("%(", "{").replace(")s", "}").replace("%%", "%"))
        for code, (status, text) in sorted(sentences.FAULTS.items())
    ]
    return render(request, "separations/problems.html", {"codes": codes})


def _fitted(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """HEAD as GET without a body; the wrong method, and a range that is not there, as problems.
    django-ninja knows none of it."""

    @wraps(view)
    def fitted(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        is_head = request.method == "HEAD"
        if is_head:
            request.method = "GET"
        response = view(request, *args, **kwargs)
        if response.status_code == 405:
            allowed = response.headers["Allow"]
            response = problems.response(Fault("wrong_method", allowed=allowed))
            response.headers["Allow"] = allowed
        if response.status_code == 416:
            size = response.headers["Content-Range"]
            response = problems.response(Fault("bad_range"))
            response.headers["Content-Range"] = size
        if is_head:
            request.method = "HEAD"
            response = _without_body(response)
        return response

    return fitted


def _without_body(response: HttpResponseBase) -> HttpResponseBase:
    bare = HttpResponse(status=response.status_code, headers=dict(response.headers))
    if isinstance(response, HttpResponse) and "Content-Length" not in bare.headers:
        bare.headers["Content-Length"] = str(len(response.content))
    response.close()
    return bare


def _patterns() -> list[URLPattern]:
    found = []
    for pattern in api.urls[0]:
        assert isinstance(pattern, URLPattern)  # noqa: S101 - for the type checker
        if pattern.name in KINDS:
            kind, of_methods = KINDS[pattern.name]
            pattern.callback = limited(kind, **of_methods)(_fitted(pattern.callback))
        else:  # the description and its pages
            pattern.callback = require_safe(pattern.callback)
        found.append(pattern)
    return [*found, path("problems", problem_page, name="problems")]


app_name = "api"
urlpatterns = _patterns()
