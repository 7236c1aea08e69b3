"""Reading of query strings and forms: an empty value is the default, an unknown name is refused."""

import re
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from functools import lru_cache, wraps
from typing import Any

from django.http import HttpRequest, HttpResponseBase
from django.utils.datastructures import MultiValueDict
from django.utils.translation import gettext
from ninja import NinjaAPI
from ninja.errors import ValidationError
from ninja.parser import Parser

from separations.uploads.handlers import unknown_file_fields

ALWAYS_TAKEN = {"csrfmiddlewaretoken"}  # a browser's form has it beside the fields
ROUTE_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")
ALIKE = 0.5  # of `difflib`: how much of a name must be right for it to be taken for a known one
UNKNOWN = "unknown_field"  # the type of the error, as pydantic has types for its own


class EmptyIsDefault(Parser):
    """Leaves out empty values: browsers and generated clients send them for what was not chosen."""

    def parse_querydict(
        self, data: MultiValueDict[str, Any], list_fields: list[str], request: HttpRequest
    ) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name in data:
            if values := [value for value in data.getlist(name) if value != ""]:
                result[name] = values if name in list_fields else values[-1]
        return result


@lru_cache(maxsize=2)
def _documented(api: NinjaAPI) -> dict[tuple[str, str], tuple[list[str], list[str]]]:
    """By path and method of the description: the names of the query, and those of the form."""
    found = {}
    described = api.get_openapi_schema()
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            query = [each["name"] for each in operation["parameters"] if each["in"] == "query"]
            form: list[str] = []
            for content in operation.get("requestBody", {}).get("content", {}).values():
                name = content["schema"]["$ref"].rpartition("/")[2]
                form += described["components"]["schemas"][name]["properties"]
            found[path, method.upper()] = query, form
    return found


def known_names(api: NinjaAPI, request: HttpRequest) -> tuple[list[str], list[str]]:
    """The names that a request's query string may have, and those of its form."""
    match = request.resolver_match
    path = ROUTE_PARAMETER.sub(r"{\1}", f"/{match.route}") if match else ""
    return _documented(api).get((path, request.method or ""), ([], []))


def unknown_fields(api: NinjaAPI, request: HttpRequest) -> Iterator[dict[str, str]]:
    """What a request sends that its operation does not know: each name, with the nearest known."""
    query, form = known_names(api, request)
    sent = [(name, query) for name in request.GET]
    if request.method == "POST":
        sent += [(name, form) for name in (*request.POST, *unknown_file_fields(request))]
    for name, known in sent:
        if name not in known and name not in ALWAYS_TAKEN:
            yield {"field": name, "message": _explain(name, known)}


def _explain(name: str, known: list[str]) -> str:
    shown = {"field": name[:100], "known": ", ".join(known)}
    if not known:
        return gettext("There is no field “%(field)s” here: this request takes none.") % shown
    plain = name.lower().removesuffix("[]")
    if near := get_close_matches(plain, known, n=1, cutoff=ALIKE):
        shown["near"] = near[0]
        text = gettext("There is no field “%(field)s” here. Did you mean “%(near)s”?")
    else:
        text = gettext("There is no field “%(field)s” here. There are: %(known)s.")
    return text % shown


def refuse_unknown(api: NinjaAPI) -> Callable[..., Any]:
    """A decorator of the API's operations, which runs when their fields have been read."""

    def decorate(operation: Callable[..., HttpResponseBase]) -> Callable[..., Any]:
        @wraps(operation)
        def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if next(unknown_fields(api, request), None):
                raise ValidationError([])  # `unknown_fields` says what is wrong
            return operation(request, *args, **kwargs)

        return checked

    return decorate
