"""What the API's description says beside its schemas: tags, parameters, headers, statuses
and the webhook."""

from typing import Any

from separations.delivery.responses import GAIN_HEADER

JSON = "application/json"
BYTES = "application/octet-stream"
BINARY = {"type": "string", "format": "binary"}
TEXT = {"type": "string"}

ABOUT = """\
Send songs, follow them, fetch their stems.

**Who asks.** A request is authorized by a token (`Authorization: Bearer …`) or by a browser's
session on this site. Where the site allows it, the first song needs neither: its answer holds a
token for it.

**Errors** are problem details (RFC 9457). Programs go by `code`; `/api/problems` explains each.

**What may come without notice:** new operations, optional parameters, fields of answers, headers,
codes, stages and formats. Clients ignore what they do not know.
"""
TAGS = [
    {"name": "Songs", "description": "Send a song, follow it, cancel, retry and delete it."},
    {"name": "Downloads", "description": "Stems, mixes and archives, in any format."},
    {"name": "Lists", "description": "Your songs, and what this site offers."},
    {"name": "Webhooks", "description": "What this site sends to your own."},
]
# Parameters that are part of addresses.
PARAMETERS: dict[str, dict[str, Any]] = {
    "task_id": {"description": "The `task_id` of a song, from the answer to sending it."},
    "stem_name": {
        "description": "The name of a stem, as the song's `stems` list them.",
        "example": "vocals",
    },
}
# What the page to try the API fills in, where there is no default: else it takes the lowest value.
FIELD_EXAMPLES = {"segment": 7.8}
SCHEMA_EXAMPLES: dict[str, dict[str, Any]] = {
    "Problem": {
        "type": "/api/problems#too_long",
        "title": "Too long",
        "status": 413,
        "detail": "This song is longer than 10 minutes. Cut it shorter and send it again.",
        "code": "too_long",
    },
    "Progress": {
        "status": "processing",
        "progress": 42,
        "stage": "separate",
        "eta": 31,
        "queue_position": None,
        "error": None,
    },
}
# Statuses, where an operation does not say it itself.
STATUSES = {
    200: "Done.",
    201: "Done.",
    202: "Accepted.",
    204: "Done; there is nothing to send.",
    206: "The range of bytes that was asked for.",
    304: "Not changed: what you have is current.",
    400: "The request cannot be read, or what it must hold is missing or empty.",
    401: "A token or a session is needed, or the token is not valid.",
    403: "A session came without its CSRF token, or from a page of another site.",
    404: "There is no such thing, or it is not yours.",
    405: "The address does not know this method.",
    409: "The song is in a state that does not allow this; `detail` names it.",
    410: "The files are not kept any more.",
    411: "A body without a length is for songs alone.",
    413: "The song is too large or too long, or the form is.",
    415: "No audio file of a kind that is taken, or the form is not `multipart/form-data`.",
    416: "The range lies beyond the end of the file.",
    422: "A value is not allowed, or the song cannot be separated; `detail` says which and why.",
    429: "A limit is reached; `detail` names it.",
    500: "A fault of the site.",
    503: "The site cannot do this for the moment.",
    507: "The site's disk is full.",
}
HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-ID": {"description": "Of this request, in the site's log.", "schema": TEXT},
    "Retry-After": {
        "description": "Seconds until the request can succeed, where the site knows.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "WWW-Authenticate": {"description": "How to authenticate: `Bearer`.", "schema": TEXT},
    "RateLimit": {
        "description": "What is left of the limit of this kind of request, and when it is more "
        "(draft-ietf-httpapi-ratelimit-headers). Missing where there is no such limit, and on 503.",
        "schema": TEXT,
    },
    "RateLimit-Policy": {"description": "That limit.", "schema": TEXT},
    "Location": {"description": "Where the song can be looked up.", "schema": TEXT},
    GAIN_HEADER: {
        "description": "By how many decibels the sound was turned down, so that nothing clips. "
        "Missing for a mix, or `sample_rate=song`, that was encoded before.",
        "schema": {"type": "number"},
    },
    "ETag": {"description": "Changes when the file does, for `If-None-Match`.", "schema": TEXT},
    "Content-Disposition": {"description": "The file's name.", "schema": TEXT},
    "Accept-Ranges": {"description": "`bytes`: parts can be asked for.", "schema": TEXT},
    "Content-Range": {"description": "Which bytes of how many these are.", "schema": TEXT},
}
OF_STATUS = {
    206: ("Content-Range",),
    304: ("ETag",),
    401: ("WWW-Authenticate",),
    416: ("Content-Range",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}
OF_ALL = ("X-Request-ID", "RateLimit", "RateLimit-Policy")
OF_FILES = ("ETag", "Content-Disposition", "Accept-Ranges", GAIN_HEADER)
# Request headers of downloads and of event streams.
RANGE = {
    "in": "header",
    "name": "Range",
    "description": "The bytes that are wanted, such as `bytes=0-1023`.",
    "schema": TEXT,
}
IF_NONE_MATCH = {
    "in": "header",
    "name": "If-None-Match",
    "description": "The `ETag` of what you have: 304 if it is current.",
    "schema": TEXT,
}
LAST_EVENT_ID = {
    "in": "header",
    "name": "Last-Event-ID",
    "description": "The id of the last event that was heard: only what changed since is sent.",
    "schema": TEXT,
}
WEBHOOK = {
    "operationId": "separationEnded",
    "summary": "A song ended",
    "description": "Sent to `webhook_url`, signed as https://www.standardwebhooks.com describes "
    "(`webhook-id`, `webhook-timestamp`, `webhook-signature`). It is sent again, later and later, "
    "until the answer is 2xx; the same `webhook-id` may come twice.",
    "tags": ["Webhooks"],
    "security": [],
    "parameters": [
        {"in": "header", "name": name, "required": True, "description": about, "schema": TEXT}
        for name, about in (
            ("webhook-id", "The same in every attempt."),
            ("webhook-timestamp", "When it was sent, in seconds since 1970."),
            ("webhook-signature", "One or more signatures `v1,…`, with spaces."),
        )
    ],
    "requestBody": {
        "required": True,
        "content": {JSON: {"schema": {"$ref": "#/components/schemas/WebhookCall"}}},
    },
    "responses": {
        "2XX": {"description": "It arrived."},
        "410": {"description": "Nobody wants it: it is not sent again."},
    },
}
