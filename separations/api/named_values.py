"""Values of which the API knows a list: each list has one name in the description, wherever it is
used, so that generated clients have one type for it."""

from typing import Annotated, Any, Literal, get_args

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from separations.audio.encoding.formats import FORMATS, bit_rates
from separations.errors.user_messages import FAULTS
from separations.models import Job
from separations.queue.queue_switch import NO_CONSUMER, PAUSED

Status = Literal["queued", "processing", "completed", "failed", "cancelled"]
SampleRate = Literal["model", "song"]
STAGES = [*Job.Stage.values, PAUSED, NO_CONSUMER]
CODES = sorted(FAULTS)
EVENTS = [f"separation.{status}" for status in ("completed", "failed", "cancelled")]


VALUES: dict[str, list[Any]] = {
    "Status": list(get_args(Status)),
    "Stage": STAGES,
    "Format": list(FORMATS),
    "BitRate": bit_rates(),
    "SampleRate": list(get_args(SampleRate)),
    "FaultCode": CODES,
    "WebhookEvent": EVENTS,
}


def _list(name: str, about: str, kind: str = "string") -> dict[str, Any]:
    return {"description": about, "type": kind, "enum": VALUES[name]}


# What the description says of each name.
NAMED: dict[str, dict[str, Any]] = {
    "Status": _list("Status", "The state of a song."),
    "Stage": _list("Stage", "What is done with a song, or what keeps everybody waiting."),
    "Format": _list("Format", "A download format."),
    "BitRate": _list("BitRate", "In kbit/s, of lossy formats; none has them all.", "integer"),
    "SampleRate": _list("SampleRate", "Of a download: the models' 44.1 kHz, or the song's own."),
    "FaultCode": _list("FaultCode", "Why something failed; `/api/problems` explains each."),
    "WebhookEvent": _list("WebhookEvent", "What a webhook tells of."),
}
# In answers these may have other values too, as more may come: a generated client must not refuse
# what a newer site says.
GROWING = ("Stage", "FaultCode")
for _name in GROWING:
    NAMED[f"Any{_name}"] = {
        "description": f"A value of `{_name}`, or one that is newer than this description.",
        "anyOf": [{"$ref": f"#/components/schemas/{_name}"}, {"type": "string"}],
    }


def in_words(names: list[str], last: str) -> str:
    """a, b and c"""
    return f" {last} ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def known_format(name: str) -> str:
    if name not in FORMATS:
        raise PydanticKnownError(
            "literal_error", {"expected": in_words(list(map(repr, FORMATS)), "or")}
        )
    return name


class _FormatName:
    """Tells pydantic that a text is a name of `FORMATS`."""

    def __get_pydantic_core_schema__(
        self, _source: Any, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(known_format, core_schema.str_schema())

    def __get_pydantic_json_schema__(
        self, _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"enum": list(FORMATS), "type": "string"}


def _one_of(values: list[Any], kind: str = "string") -> WithJsonSchema:
    """Describes values, and checks none: they come from this site, or are checked elsewhere."""
    return WithJsonSchema({"type": kind, "enum": values})


FormatName = Annotated[str, _FormatName()]
Stage = Annotated[str, _one_of(STAGES)]
FaultCode = Annotated[str, _one_of(CODES)]
WebhookEvent = Annotated[str, _one_of(EVENTS)]
# `read_format` checks it: its message names the bit rates of the very format.
BitRate = Annotated[int, _one_of(bit_rates(), "integer")]
