"""The API's addresses under /api/, its error handlers, its description and its pages."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.db import DatabaseError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, UnreadablePostError
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import URLPattern, path
from django.utils.cache import patch_vary_headers
from django.views.decorators.http import require_safe
from ninja.errors import AuthenticationError, ValidationError
from ninja.openapi.docs import Swagger

from separations.api import auth, descriptions, parameters
from separations.api.openapi import Api, StrictJson
from separations.api.routes import downloads, lists, songs
from separations.errors import problem_details, user_messages
from separations.errors.fault import Fault
from separations.fair_use.rate_limits import limited
from separations.fair_use.refusals import outage_fault
from separations.monitoring import fault_counts
from separations.uploads.handlers import refused_files


class TryItPage(Swagger):
    """Swagger UI in a page of this site."""

    template = "separations/api_docs.html"


api = Api(
    renderer=StrictJson(),
    parser=parameters.EmptyIsDefault(),
    title="Stemsite",
    version="1",
    description=descriptions.ABOUT,
    urls_namespace="api",
    auth=list(auth.IDENTIFIED),
    docs=TryItPage({"persistAuthorization": False, "tryItOutEnabled": True}),
)
api.add_decorator(parameters.refuse_unknown(api))
for routes in (songs, downloads, lists):
    api.add_router("", routes.router)
PROBLEM_FORMATS = {"html": "text/html", "json": "application/json"}
# The rate limit of each address, by name: see `separations.fair_use.rate_limits`.
KINDS: dict[str, tuple[str, dict[str, str]]] = {
    "separate": ("upload", {}),
    "task": ("action", {"GET": "api", "HEAD": "api"}),
    "cancel": ("action", {}),
    "retry": ("action", {}),
    "progress": ("events", {}),
    "stem": ("download", {}),
    "mixdown": ("download", {}),
    "archive": ("download", {}),
    "cover": ("listen", {}),
    "jobs": ("api", {}),
    "models": ("api", {}),
    "limits": ("api", {}),
}


@api.exception_handler(Fault)
def problem_of_fault(request: HttpRequest, exc: Fault) -> HttpResponse:
    return problem_details.response(exc)


@api.exception_handler(Http404)
def not_found(request: HttpRequest, exc: Http404) -> HttpResponse:
    return problem_details.response(Fault("not_found"))


@api.exception_handler(AuthenticationError)
def unauthorized(request: HttpRequest, exc: AuthenticationError) -> HttpResponse:
    return problem_details.response(Fault("unauthorized"))


@api.exception_handler(UnreadablePostError)
def unreadable_body(request: HttpRequest, exc: UnreadablePostError) -> HttpResponse:
    """The client disconnected, or was too slow."""
    return problem_details.response(Fault("bad_request"))


@api.exception_handler(DatabaseError)
def database_busy(request: HttpRequest, exc: DatabaseError) -> HttpResponse:
    if problem_of_fault := outage_fault(exc):
        response = problem_details.response(problem_of_fault)
        response._has_been_logged = True  # type: ignore[attr-defined]
        return response
    raise exc


@api.exception_handler(ValidationError)
def bad_field(request: HttpRequest, exc: ValidationError) -> HttpResponse:
    """Values that the schema refuses, and fields that it does not have. A file that the upload
    handlers refused is missing here."""
    for _name, refusal in refused_files(request):
        fault_counts.count_refusals([refusal])
        return problem_details.response(refusal)
    _query, form = parameters.known_names(api, request)
    if form and request.content_type != "multipart/form-data":
        return problem_details.response(Fault("wrong_content_type"))
    errors = [{"field": str(error["loc"][-1]), "message": error["msg"]} for error in exc.errors]
    unknown = list(parameters.unknown_fields(api, request))
    fields = [error["field"] for error in (*errors, *unknown)]
    if fields == ["file"]:
        return problem_details.response(Fault("no_file"))
    if fields == ["Idempotency-Key"]:
        return problem_details.response(Fault("bad_idempotency_key"))
    fault = Fault("bad_field", fields=", ".join(fields))
    if errors:
        return problem_details.response(fault, errors=errors + unknown)
    detail = " ".join(error["message"] for error in unknown)
    return problem_details.response(fault, errors=unknown, detail=detail)


@require_safe
def problem_page(request: HttpRequest) -> HttpResponse:
    """The codes of problems explained: a page, or JSON for `?format=json` and who prefers it."""
    codes = [
        (code, status, str(text).replace("%(", "{").replace(")s", "}").replace("%%", "%"))
        for code, (status, text) in sorted(user_messages.FAULTS.items())
    ]
    asked = request.GET.get("format") or request.get_preferred_type(list(PROBLEM_FORMATS.values()))
    if PROBLEM_FORMATS.get(asked or "", asked) == PROBLEM_FORMATS["json"]:
        items = [problem_details.described(*each) for each in codes]
        response: HttpResponse = JsonResponse({"items": items})
    else:
        response = render(request, "separations/problems.html", {"codes": codes})
    patch_vary_headers(response, ["Accept"])
    return response


def _adapted(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Add what django-ninja lacks: HEAD, and problems for wrong methods and ranges."""

    @wraps(view)
    def fitted(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        is_head = request.method == "HEAD"
        if is_head:
            request.method = "GET"
        response = view(request, *args, **kwargs)
        if response.status_code == 405:
            allowed = response.headers["Allow"]
            response = problem_details.response(Fault("wrong_method", allowed=allowed))
            response.headers["Allow"] = allowed
        if response.status_code == 416:
            size = response.headers["Content-Range"]
            response = problem_details.response(Fault("bad_range"))
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
            pattern.callback = limited(kind, **of_methods)(_adapted(pattern.callback))
        else:  # the description and its pages
            pattern.callback = require_safe(pattern.callback)
        found.append(pattern)
    return [*found, path("problems", problem_page, name="problems")]


app_name = "api"
urlpatterns = _patterns()
