"""The API's description (OpenAPI 3.1): django-ninja's, with what it cannot know added: the media
types of errors, events and audio, and the webhooks."""

from functools import cached_property
from typing import Any

from ninja import NinjaAPI
from ninja.openapi.schema import OpenAPISchema
from ninja.operation import Operation
from ninja.renderers import JSONRenderer

from separations.api import schemas
from separations.errors.problem_details import CONTENT_TYPE

JSON = "application/json"
COMPONENT = "#/components/schemas/{model}"


def problem_responses(*statuses: int) -> dict[int, Any]:
    """An operation's error answers, by status; each may refuse a field that it does not know."""
    return dict.fromkeys((*statuses, 422, 500), schemas.Problem)


OPEN: dict[str, Any] = {"security": [{}]}  # authentication is optional
EVENT = {
    "type": "object",
    "required": ["id", "data"],
    "properties": {
        "id": {"type": "string"},
        "data": {
            "type": "string",
            "contentMediaType": JSON,
            "contentSchema": {"$ref": "#/components/schemas/Progress"},
        },
    },
}


def binary_response(
    media_type: str, others: dict[int, str] | None = None, schema: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The successful answers of an operation that sends no JSON."""
    content = {media_type: {"schema": schema or {}}}
    answers: dict[int, Any] = {200: {"description": "OK", "content": content}}
    for status, description in (others or {}).items():
        answers[status] = {"description": description}
        if status == 206:
            answers[status]["content"] = content
    return {"responses": answers}


class StrictJson(JSONRenderer):
    """Refuses NaN and infinity, which JSON does not have."""

    json_dumps_params = {"allow_nan": False}


class Api(NinjaAPI):
    def get_openapi_operation_id(self, operation: Operation) -> str:
        """A stable id without the module: generated clients name their functions after it."""
        return f"separations_api_routes_{operation.view_func.__name__}"

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
        for path in described["paths"].values():
            for operation in path.values():
                _without_null(operation.get("requestBody", {}))
                operation["responses"] = {
                    str(status): _problem_media_type(answer) if int(status) >= 400 else answer
                    for status, answer in sorted(operation["responses"].items())
                }
        progress = schemas.Progress.model_json_schema(ref_template=COMPONENT)
        progress.pop("$defs")  # they are components already
        described["components"]["schemas"]["Progress"] = progress
        described["webhooks"] = {"separation": {"post": WEBHOOK}}
        return described


def _without_null(body: dict[str, Any]) -> None:
    """Remove null from form fields: a form leaves optional fields out."""
    for content in body.get("content", {}).values():
        for name, field in content["schema"].get("properties", {}).items():
            kinds = [kind for kind in field.get("anyOf", ()) if kind != {"type": "null"}]
            if len(kinds) == 1:
                rest = {key: value for key, value in field.items() if key != "anyOf"}
                content["schema"]["properties"][name] = {**rest, **kinds[0]}


def _problem_media_type(answer: dict[str, Any]) -> dict[str, Any]:
    content = dict(answer.get("content", {}))
    if JSON in content:
        content[CONTENT_TYPE] = content.pop(JSON)
    return {**answer, "content": content}


WEBHOOK = {
    "summary": "A song ended",
    "description": "Sent to `webhook_url`, signed as https://www.standardwebhooks.com describes "
    "(`webhook-id`, `webhook-timestamp`, `webhook-signature`). It is sent again, later and later, "
    "until the answer is 2xx; the same `webhook-id` may come twice.",
    "requestBody": {
        "content": {
            JSON: {
                "schema": {
                    "type": "object",
                    "required": ["type", "timestamp", "data"],
                    "properties": {
                        "type": {
                            "enum": [
                                "separation.completed",
                                "separation.failed",
                                "separation.cancelled",
                            ]
                        },
                        "timestamp": {"type": "string", "format": "date-time"},
                        "data": {"type": "object"},
                    },
                }
            }
        }
    },
    "responses": {"2XX": {"description": "It arrived."}},
}
