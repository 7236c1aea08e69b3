"""Gives schemathesis a song to send, beside the bytes it makes up itself."""

import itertools
import os
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis.core import file_samples
from schemathesis.transport.serialization import Binary

ADDRESS = "https://hooks.example.org/"
SHORTEST_LIMIT = 40  # characters; of the description's for these fields
SONG = Path(os.environ["API_SONG"]).read_bytes()
# It names a file by what the bytes begin with, and knows no sound.
signatures: Any = file_samples
signatures._SIGNATURES = (*signatures._SIGNATURES, (b"RIFF", "wav"))
schemathesis.openapi.format("binary", st.sampled_from([SONG, b"no song"]).map(Binary))
_count = itertools.count()


# Fields whose texts are read more kindly than they are described: empty ones are the default, and
# a switch may be spelled as clients do. What breaks the description that way has to break it more.
NO_TEXTS = ("rest", "segment", "shifts", "overlap", "split")
CHOICES = ("format", "bitrate", "page", "per_page", "status")
SPELLINGS = ("true", "false", "1", "0", "yes", "no", "on", "off")


def _kindly_read(fields: Any, names: tuple[str, ...]) -> list[str]:
    if not isinstance(fields, dict):
        return []
    found = [name for name in names if fields.get(name) in ("", [""])]
    switch = fields.get("split")
    if "split" in names and not isinstance(switch, bool) and str(switch).lower() in SPELLINGS:
        found.append("split")
    return found


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    for fields, names in ((case.query, CHOICES), (case.body, NO_TEXTS)):
        for name in _kindly_read(fields, names):
            fields[name] = "wrong"


@schemathesis.hook
def before_load_schema(context: Any, raw_schema: dict[str, Any]) -> None:
    """Say of each event what the description says of the stream: for generators' sake it is a
    string there, and schemathesis checks events one by one."""
    for path in raw_schema["paths"].values():
        for operation in path.values():
            for content in operation["responses"].get("200", {}).get("content", {}).values():
                if progress := content["schema"].get("contentSchema"):
                    content["schema"] = {
                        "type": "object",
                        "required": ["id", "data"],
                        "properties": {
                            "id": {"type": "string"},
                            "data": {
                                "type": "string",
                                "contentMediaType": "application/json",
                                "contentSchema": progress,
                            },
                        },
                    }


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Every other form has the names of what there is, which no description can tell. What is wrong
    on purpose stays so."""
    if isinstance(body, dict) and "file" in body and next(_count) % 2:
        known = {"model": "tiny", "stems": "vocals", "webhook_url": ADDRESS}
        if all(_is_short(body.get(name, "")) for name in known):
            return {**body, **known}
    return body


def _is_short(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= SHORTEST_LIMIT
