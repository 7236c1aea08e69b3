"""The API's own description (OpenAPI 3.1): what django-ninja makes of the routes, put right where
it cannot know: the media types of errors, events and sound, and the webhooks."""

from typing import Any

from ninja import NinjaAPI
from ninja.openapi.schema import OpenAPISchema

from separations.api import schemas
from separations.problems import CONTENT_TYPE

JSON = "application/json"


def problems_of(*statuses: int) -> dict[int, Any]:
    """The answers of an operation that are problems."""
    return dict.fromkeys((*statuses, 500), schemas.Problem)


OPEN: dict[str, Any] = {"security": [{}]}  # to nobody in particular, too
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


def binary(
    media_type: str, others: dict[int, str] | None = None, schema: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The good answers of an operation that sends no JSON."""
    content = {media_type: {"schema": schema or {}}}
    answers: dict[int, Any] = {200: {"description": "OK", "content": content}}
    for status, description in (others or {}).items():
        answers[status] = {"description": description}
        if status == 206:
            answers[status]["content"] = content
    return {"responses": answers}


class Api(NinjaAPI):
    def get_openapi_schema(self, **kwargs: Any) -> OpenAPISchema:
        described = super().get_openapi_schema(**kwargs)
        for path in described["paths"].values():
            for operation in path.values():
                _without_null(operation.get("requestBody", {}))
                operation["responses"] = {
                    str(status): _as_problem(answer) if int(status) >= 400 else answer
                    for status, answer in sorted(operation["responses"].items())
                }
        described["components"]["schemas"]["Progress"] = schemas.Progress.model_json_schema()
        described["webhooks"] = {"separation": {"post": CALL}}
        return described


def _without_null(body: dict[str, Any]) -> None:
    """A form has no null: what may be left out is left out."""
    for content in body.get("content", {}).values():
        for name, field in content["schema"].get("properties", {}).items():
            kinds = [kind for kind in field.get("anyOf", ()) if kind != {"type": "null"}]
            if len(kinds) == 1:
                rest = {key: value for key, value in field.items() if key != "anyOf"}
                content["schema"]["properties"][name] = {**rest, **kinds[0]}


def _as_problem(answer: dict[str, Any]) -> dict[str, Any]:
    content = dict(answer.get("content", {}))
    if JSON in content:
        content[CONTENT_TYPE] = content.pop(JSON)
    return {**answer, "content": content}


CALL = {
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
