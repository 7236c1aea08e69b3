"""The API's description (OpenAPI 3.1): django-ninja's, with what it cannot know added, so that
generated clients, linters and the page to try it can work with it."""

from collections.abc import Iterator
from functools import cached_property
from http.client import responses
from typing import Any

from django.conf import settings
from ninja import NinjaAPI
from ninja.openapi.schema import OpenAPISchema
from ninja.operation import Operation
from ninja.renderers import JSONRenderer
from pydantic.json_schema import models_json_schema

from separations.api import descriptions, named_values, schemas
from separations.api.descriptions import BINARY, BYTES, JSON
from separations.api.webhook_schemas import WebhookCall
from separations.audio.encoding.formats import FORMATS
from separations.errors.problem_details import CONTENT_TYPE

REF = "#/components/schemas/{model}"
FORM = "SeparationRequest"  # the form beside the file has a name, as generated clients use it
# Described though no operation answers with them alone: events and webhooks hold them.
BESIDE = (schemas.Progress, WebhookCall)
OPEN: dict[str, Any] = {"security": [{}]}  # authentication is optional
EVENT_STREAM: dict[str, Any] = {
    "responses": {
        200: {
            "description": "Events. The `data` of each is `Progress`, as JSON.",
            # A string: most generators cannot read a stream of objects.
            "content": {
                "text/event-stream": {
                    "schema": {
                        "type": "string",
                        "contentMediaType": "text/event-stream",
                        "contentSchema": {"$ref": REF.format(model="Progress")},
                    },
                    "example": 'id: 9f2c\ndata: {"status":"queued","progress":0,"stage":"wait",'
                    '"eta":null,"queue_position":1,"error":null}\n\n',
                }
            },
        },
        204: {"description": "The end was heard already (`Last-Event-ID`)."},
    },
    "parameters": [descriptions.LAST_EVENT_ID],
}


def located(*statuses: int) -> dict[str, Any]:
    """Answers that say where the song can be looked up."""
    headers = {"Location": {"$ref": "#/components/headers/Location"}}
    return {"responses": {status: {"headers": dict(headers)} for status in statuses}}


def problem_responses(*statuses: int) -> dict[int, Any]:
    """An operation's error answers, by status; each may refuse a field that it does not know."""
    return dict.fromkeys((*statuses, 422, 500), schemas.Problem)


def file_responses(description: str, *media_types: str) -> dict[str, Any]:
    """The successful answers of a download that knows ranges and ETags.

    `application/octet-stream` is among the media types: it is what `Accept` may ask for, and makes
    generators that know no others give bytes.
    """
    content = {each: {"schema": BINARY} for each in (*media_types, BYTES)}
    return {
        "responses": {
            200: {"description": description, "content": content},
            206: {"content": content},
            304: {},
        },
        "parameters": [descriptions.RANGE, descriptions.IF_NONE_MATCH],
    }


SOUND = tuple(dict.fromkeys(format.content_type for format in FORMATS.values()))


class StrictJson(JSONRenderer):
    """Refuses NaN and infinity, which JSON does not have."""

    json_dumps_params = {"allow_nan": False}


class Api(NinjaAPI):
    def get_openapi_operation_id(self, operation: Operation) -> str:
        """For operations that name none: generated clients name their functions after it."""
        first, *others = operation.view_func.__name__.split("_")
        return first + "".join(map(str.capitalize, others))

    def get_openapi_schema(self, **kwargs: Any) -> OpenAPISchema:
        """The description, built once: it takes a tenth of a second, and is public."""
        key = repr(sorted(kwargs.items()))
        if key not in self._described:
            self._described[key] = self._describe(**kwargs)
        return self._described[key]

    @cached_property
    def _described(self) -> dict[str, OpenAPISchema]:
        return {}

    def _describe(self, **kwargs: Any) -> OpenAPISchema:
        described = super().get_openapi_schema(**kwargs)
        described["info"] |= {
            "contact": {"name": "Who runs this site", "url": f"{settings.SITE_URL}/about"},
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        }
        described["servers"] = [{"url": "/", "description": "This site."}]
        described["tags"] = descriptions.TAGS
        described["webhooks"] = {"separation": {"post": descriptions.WEBHOOK}}
        components = described["components"]
        _, beside = models_json_schema(
            [(each, "serialization") for each in BESIDE], ref_template=REF
        )
        components["schemas"] |= beside["$defs"] | named_values.NAMED
        for name, example in descriptions.SCHEMA_EXAMPLES.items():
            components["schemas"][name]["examples"] = [example]
        components["headers"] = descriptions.HEADERS
        for path in described["paths"].values():
            for operation in path.values():
                _describe_operation(operation, components["schemas"])
        for name, part in described.items():
            described[name] = _tidy(part)
        _remove_unused(described)
        return described


def _describe_operation(operation: dict[str, Any], components: dict[str, Any]) -> None:
    for parameter in operation["parameters"]:
        for name, value in descriptions.PARAMETERS.get(parameter["name"], {}).items():
            parameter.setdefault(name, value)
        parameter["schema"] = _without_null(parameter["schema"])
    for content in operation.get("requestBody", {}).get("content", {}).values():
        form = content["schema"]
        form["properties"] = {n: _without_null(each) for n, each in form["properties"].items()}
        for name, example in descriptions.FIELD_EXAMPLES.items():
            if name in form["properties"]:
                form["properties"][name]["examples"] = [example]
        components[FORM] = {**form, "title": FORM, "description": schemas.Asked.__doc__}
        content["schema"] = {"$ref": REF.format(model=FORM)}
    operation["responses"] = {
        str(status): _answer(int(status), answer, components)
        for status, answer in sorted(operation["responses"].items())
    }


def _answer(status: int, answer: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    """An answer with its description, its headers and, for errors, the media type of problems."""
    content = dict(answer.get("content", {}))
    described = {**answer, "description": _description(status, answer, components)}
    names = [*descriptions.OF_ALL, *descriptions.OF_STATUS.get(status, ())]
    if BYTES in content:
        names += descriptions.OF_FILES
    described["headers"] = {
        **{name: {"$ref": f"#/components/headers/{name}"} for name in names},
        **answer.get("headers", {}),
    }
    if status >= 400 and JSON in content:
        content[CONTENT_TYPE] = content.pop(JSON)
    return {**described, "content": content} if content else described


def _description(status: int, answer: dict[str, Any], components: dict[str, Any]) -> str:
    """What the operation says itself, or else what its schema does, or the status."""
    own = answer.get("description", "")
    if own and own != responses[status]:  # django-ninja has no better words
        return str(own)
    schema = answer.get("content", {}).get(JSON, {}).get("schema", {})
    name = schema.get("$ref", "").rpartition("/")[2]
    if status < 400 and (about := components.get(name, {}).get("description")):
        return str(about)
    return descriptions.STATUSES.get(status, str(own))


def _without_null(field: dict[str, Any]) -> dict[str, Any]:
    """A form's field, or a parameter, that is left out where it has no value: it is never null."""
    kinds = [kind for kind in field.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return field
    return {**kinds[0], **{key: value for key, value in field.items() if key != "anyOf"}}


def _tidy(part: Any) -> Any:
    """The same with the names of `named_values.NAMED`, without the titles that pydantic makes up
    for fields."""
    if isinstance(part, list):
        return [_tidy(each) for each in part]
    if not isinstance(part, dict) or part in named_values.NAMED.values():
        return part
    tidied = {key: _tidy(value) for key, value in part.items()}
    for each in (*tidied.get("properties", {}).values(), tidied.get("schema", {})):
        each.pop("title", None)
    if len(only := tidied.get("allOf", ())) == 1:
        tidied = {**only[0], **{key: value for key, value in tidied.items() if key != "allOf"}}
    for name, values in named_values.VALUES.items():
        if tidied.get("enum") == values:
            rest = {key: value for key, value in tidied.items() if key not in ("type", "enum")}
            any_of = f"Any{name}" if name in named_values.GROWING else name
            return {"$ref": REF.format(model=any_of), **rest}
    return tidied


def _remove_unused(described: dict[str, Any]) -> None:
    """Remove components that nothing refers to, until there are none."""
    for group in ("schemas", "headers"):
        components = described["components"][group]
        while unused := set(components) - {
            reference.rpartition("/")[2] for reference in _references(described)
        }:
            described["components"][group] = components = {
                name: each for name, each in components.items() if name not in unused
            }


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for each in part.values():
            yield from _references(each)
    elif isinstance(part, list):
        for each in part:
            yield from _references(each)
