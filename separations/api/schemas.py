"""Schemas of the API's requests and answers. Their descriptions are the API's documentation."""

import re
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, TypeVar, cast

from ninja import Field, Schema
from pydantic import BeforeValidator, create_model

from separations.api.named_values import (
    BitRate,
    FaultCode,
    FormatName,
    SampleRate,
    Stage,
    Status,
    in_words,
)
from separations.audio.encoding.formats import (
    DEFAULT_FORMAT,
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

WHOLE = re.compile(r"\d{1,18}(\.0+)?", re.ASCII)
TRUTHS = ("true", "false", "1", "0", "yes", "no", "on", "off")


def whole_number(value: object) -> object:
    """Refuse form texts for an int but digits, which may end in ".0" (as JSON's integers may)."""
    if isinstance(value, str) and not WHOLE.fullmatch(value):
        raise ValueError("must be a whole number")
    return value


def truth(value: object) -> object:
    """Refuse form texts for a bool but TRUTHS, in any case: Python's clients write `True`, forms
    `on`, others 1."""
    if isinstance(value, str) and value.lower() not in TRUTHS:
        raise ValueError(f"must be one of {', '.join(TRUTHS)}")
    return value


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


WholeNumber = Annotated[int, BeforeValidator(whole_number)]
Truth = Annotated[bool, BeforeValidator(truth)]
FORM_TYPES: dict[Any, Any] = {int: WholeNumber, bool: Truth}
WebAddress = Annotated[str, Field(max_length=500)]


class FieldError(Schema):
    """A value that could not be read."""

    field: str
    message: str


class Problem(Schema):
    """An error (RFC 9457). Programs go by `code`; `detail` is for people."""

    type: str = Field(description="A page that explains the code.")
    title: str = Field(description="The code in words.")
    status: int = Field(description="The HTTP status; of a failed song, what it would be.")
    detail: str = Field(description="What is wrong and what to do, in the reader's language.")
    code: FaultCode = Field(description="Programs go by it.")
    limit: str | None = Field(
        None,
        description="For 429, and 503 of the whole site: the limit that was met, as in "
        "`RateLimit-Policy` and `/api/limits`.",
    )
    errors: list[FieldError] | None = Field(
        None, description="For `bad_field`: each value that could not be read."
    )


class Progress(Schema):
    """How far a song is."""

    status: Status
    progress: int = Field(ge=0, le=100, description="Whole percent; 100 when the stems are there.")
    stage: Stage | None = Field(description="Null when the song has ended.")
    eta: int | None = Field(description="Seconds that are left, where that is known.")
    queue_position: int | None = Field(description="1 for the next to run; null out of the queue.")
    error: Problem | None = Field(description="Why it failed, when it did.")


class StemLinks(Schema):
    """A stem, and where it is downloaded."""

    name: str = Field(description="The same in every language.")
    label: str = Field(description="In the reader's language.")
    peak: float = Field(description="Largest sample; 1 is full scale.")
    loudness: float | None = Field(description="LUFS; null for silence.")
    url: str = Field(description="Takes `format`, `bitrate`, `sample_rate`, `from` and `to`.")


class Links(Schema):
    """The addresses of everything about a song."""

    self: str
    progress: str = Field(description="A stream of events.")
    stems: dict[str, str] = Field(description="By stem; empty until the song is completed.")
    archive: str
    mixdown: str
    cancel: str
    retry: str
    page: str = Field(description="For people.")
    cover: str | None = Field(None, description="The picture in the file's tags, JPEG or PNG.")


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
    title: str = Field(description="From the file's tags, or its name.")
    artist: str = Field(description="From the file's tags; may be empty.")
    album: str | None = Field(description="As the following six, from the file's tags.")
    track: int | None
    track_total: int | None
    year: int | None
    genre: str | None
    bpm: float | None
    key: str | None = Field(description='As the file says it, such as "F#m" or "8A".')
    duration: float = Field(description="Seconds.")
    sample_rate: int = Field(description="Of the song as it was sent, in Hz.")
    stems: list[StemLinks]
    notes: list[str] = Field(description="What is worth knowing, in the reader's language.")
    gain_db: float | None = Field(
        description="By how much all stems are turned down together in every format but float32, "
        "so that none clips: 0 or less. At `sample_rate=song` it can be a little more, which "
        "`Stemsite-Gain-Db` says. Null until the song is completed."
    )
    expired: bool = Field(description="Completed once, but the stems were deleted since.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class NewTask(Task):
    """A song that was just sent, and for who came without one, a token."""

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
    """A page of songs. `next` and `previous` are the addresses of its neighbours."""

    items: list[Task]
    count: int = Field(description="Of all pages.")
    page: int | None = Field(description="Its number; null where `cursor` says where it begins.")
    pages: int
    next: str | None = Field(description="Null on the last page.")
    previous: str | None = Field(description="Null on the first page.")
    next_cursor: str | None = Field(description="The `cursor` in `next`.")


class Model(Schema):
    """A model that is installed."""

    name: str
    sources: list[str] = Field(description="The stems it gives; each can be `stems` of a request.")
    about: str
    passes: int = Field(description="Networks that go over the song, one after the other.")
    segment: float = Field(description="Seconds of a chunk.")
    is_default: bool


class Models(Schema):
    """The models that are installed."""

    items: list[Model]


class RateLimit(Schema):
    """How often something may be done, as `RateLimit-Policy` and `RateLimit` say it."""

    name: str
    quota: int = Field(description="So many in `window` seconds.")
    window: int
    left: int = Field(description="For you, now.")


class Quota(Schema):
    """How much somebody may have."""

    most: float | None = Field(description="Null for no limit.")
    left: float | None = Field(description="For you, now.")


class Quotas(Schema):
    """How much each visitor or account may have."""

    songs_waiting: Quota
    minutes_a_day: Quota = Field(description="Each pass of a model counts.")
    storage_gb: Quota | None = Field(
        description="Null before the first song, where it depends on the site's disk."
    )


class FormatChoice(Schema):
    """A download format, and what can be chosen in it."""

    name: FormatName
    label: str
    extension: str
    content_type: str
    bit_rates: list[BitRate] = Field(description="kbit/s; the last is the default.")
    sample_rates: list[int] = Field(
        description="Hz, those that its files can have; empty where these are all. At "
        "`sample_rate=model` a file has 44.1 kHz, Ogg Opus 48."
    )
    may_be_turned_down: bool = Field(description="Whether `gain_db` applies.")


class Limits(Schema):
    """What this site takes and gives, and what is left for you."""

    max_bytes: int = Field(description="Of a file.")
    max_seconds: float = Field(description="Of a song.")
    max_passes: float = Field(description="Over a song, of all options together.")
    extensions: list[str] = Field(description="Of files that are taken.")
    formats: list[FormatChoice]
    default_format: FormatName
    rates: list[RateLimit]
    quotas: Quotas
    anonymous: bool = Field(description="Whether songs can be sent without a token.")


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
    """A song, and how to separate it."""

    webhook_url: WebAddress = Field(
        "", description="An address to call when the song ends; see `webhooks`."
    )


TIMES = "Seconds (`65.5`), `m:ss` or `h:mm:ss`"


class Wanted(Schema):
    """What a download is to be: the format, and the part of the song."""

    format: FormatName = Field(DEFAULT_FORMAT, description="How to write the file.")
    bitrate: BitRate | None = Field(
        None,
        description=f"kbit/s, for {in_words(names_with_bit_rates(), 'and')}; the highest by "
        "default.",
    )
    sample_rate: SampleRate = Field(
        MODEL_RATE,
        description="`model`: 44.1 kHz, at which the models work. `song`: that of the song (see "
        "`sample_rate` of a task), resampled; MP3, M4A and Opus take some rates only.",
    )
    start: str = Field("", alias="from", description=f"{TIMES}; the beginning by default.")
    stop: str = Field("", alias="to", description=f"{TIMES}; the end by default.")
