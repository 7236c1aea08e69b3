"""Schemas of the API's requests and answers. Their descriptions are the API's documentation."""

import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar, cast

from ninja import Field, Schema
from pydantic import BeforeValidator, GetCoreSchemaHandler, GetJsonSchemaHandler, create_model
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from separations.audio.encoding.formats import (
    DEFAULT_FORMAT,
    FORMATS,
    MODEL_RATE,
    names_with_bit_rates,
)
from separations.engine.options import (
    BY_SENDER,
    DECLARED,
    default_of,
    hint_of,
    plain_hint_of,
)


def digits(value: object) -> object:
    """Refuse form texts other than digits for an int, such as "1.0"."""
    if isinstance(value, str) and not value.isdecimal():
        raise ValueError("must be digits alone")
    return value


def truth(value: object) -> object:
    """Refuse form texts other than "true" and "false" for a bool."""
    if isinstance(value, str) and value not in ("true", "false"):
        raise ValueError("must be true or false")
    return value


def known_format(name: str) -> str:
    if name not in FORMATS:
        raise PydanticKnownError(
            "literal_error", {"expected": in_words(list(map(repr, FORMATS)), "or")}
        )
    return name


def in_words(names: list[str], last: str) -> str:
    """a, b and c"""
    return f" {last} ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


T = TypeVar("T", bound=Schema)


def led_by(fields: dict[str, Any]) -> Callable[[type[T]], type[T]]:
    """Put these fields before those of a schema: the options of `engine.options`, for example."""

    def with_fields(schema: type[T]) -> type[T]:
        own: dict[str, Any] = {
            name: (each.annotation, each) for name, each in schema.model_fields.items()
        }
        made = create_model(
            schema.__name__,
            __base__=Schema,
            __doc__=schema.__doc__,
            __module__=schema.__module__,
            **{**fields, **own},
        )
        return cast(type[T], made)

    return with_fields


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


Status = Literal["queued", "processing", "completed", "failed", "cancelled"]
SampleRate = Literal["model", "song"]
FormatName = Annotated[str, _FormatName()]
Digits = Annotated[int, BeforeValidator(digits)]
Truth = Annotated[bool, BeforeValidator(truth)]
FORM_TYPES: dict[Any, Any] = {int: Digits, bool: Truth}
WebAddress = Annotated[str, Field(max_length=500)]


class Problem(Schema):
    """An error (RFC 9457). Programs go by `code`; `detail` is for people."""

    type: str = Field(description="A page that explains the code.")
    title: str
    status: int
    detail: str = Field(description="What is wrong and what to do, in the reader's language.")
    code: str
    errors: list[dict[str, Any]] | None = Field(
        None, description="For `bad_field`: each value that could not be read."
    )


class Progress(Schema):
    """How far a song is."""

    status: Status
    progress: int = Field(ge=0, le=100, description="Whole percent; 100 when the stems are there.")
    stage: str | None = Field(
        description="What is done just now: wait, memory, disk, start, decode, separate or "
        "encode; or what keeps everybody waiting: paused, no_consumer."
    )
    eta: int | None = Field(description="Seconds that are left, where that is known.")
    queue_position: int | None = Field(description="1 for the next to run; null out of the queue.")


class StemLinks(Schema):
    name: str
    label: str = Field(description="In the reader's language.")
    peak: float = Field(description="Largest sample; 1 is full scale.")
    loudness: float | None = Field(description="LUFS; null for silence.")
    url: str


class Links(Schema):
    self: str
    progress: str
    stems: dict[str, str] = Field(description="By stem; empty until the song is completed.")
    archive: str
    mixdown: str
    cancel: str
    retry: str
    page: str


@led_by({name: (plain_hint_of(name), ...) for name in BY_SENDER if name != "model"})
class UsedOptions(Schema):
    """The options as they are used, which may differ from what was asked: see `notes`."""


class Task(Progress):
    """A song that is, or was, separated."""

    task_id: uuid.UUID
    links: Links
    cached: bool = Field(description="Whether nothing had to run: the result was there.")
    model: str
    options: UsedOptions
    title: str
    artist: str
    duration: float = Field(description="Seconds.")
    sample_rate: int = Field(description="Of the song as it was sent, in Hz.")
    stems: list[StemLinks]
    notes: list[str]
    error: Problem | None = Field(description="Why it failed.")
    expired: bool = Field(description="Completed once, but the stems were deleted since.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class NewTask(Task):
    token: str | None = Field(
        None,
        description="For who came without one: send it as `Authorization: Bearer …` to see the "
        "song again. Anybody who has it can.",
    )
    webhook_secret: str | None = Field(
        None,
        description="With `webhook_url`, for who has no account: what the calls are signed with.",
    )


class Tasks(Schema):
    items: list[Task]
    count: int
    page: int
    pages: int
    next: str | None
    previous: str | None


class Model(Schema):
    name: str
    sources: list[str] = Field(description="The stems it gives; each can be `stems` of a request.")
    about: str
    passes: int = Field(description="Networks that go over the song, one after the other.")
    segment: float = Field(description="Seconds of a chunk.")
    is_default: bool


class Models(Schema):
    items: list[Model]


def _asked(name: str) -> tuple[Any, Any]:
    """An option as a field of a form: its type and bounds, from where it is declared."""
    declared, hint = DECLARED[name], hint_of(name)
    default, about = default_of(name), declared.about
    if name == "model":
        default, about = "", "One of `/api/models`; the default one if left out."
    if hint is bool:
        about = f"`false`: {about}"
    bounds = {
        "ge": declared.lowest,
        "le": declared.highest,
        "max_length": declared.most_characters,
    }
    given = {name: bound for name, bound in bounds.items() if bound is not None}
    field: Any = Field(default, description=about, **given)  # type: ignore[call-overload]
    return FORM_TYPES.get(hint, hint), field


@led_by({name: _asked(name) for name in BY_SENDER})
class Asked(Schema):
    """The form beside the file."""

    webhook_url: WebAddress | None = Field(
        None, description="An address to call when the song ends; see `webhooks`."
    )


class Wanted(Schema):
    """What a download is to be: the format, and the part of the song."""

    format: FormatName = DEFAULT_FORMAT
    bitrate: int | None = Field(
        None,
        description=f"kbit/s, for {in_words(names_with_bit_rates(), 'and')}; the highest by "
        "default.",
    )
    sample_rate: SampleRate = Field(
        MODEL_RATE,
        description="`model`: 44.1 kHz, at which the models work. `song`: that of the song (see "
        "`sample_rate` of a task), resampled; MP3, M4A and Opus take some rates only.",
    )
    start: str = Field("", alias="from", description="Seconds; the beginning by default.")
    stop: str = Field("", alias="to", description="Seconds; the end by default.")
