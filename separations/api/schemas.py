"""What the API takes and gives, as its clients see it."""

import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

from ninja import Field, Schema
from pydantic import BeforeValidator


def digits(value: object) -> object:
    """A form's text for an int; "1.0" is none."""
    if isinstance(value, str) and not value.isdecimal():
        raise ValueError("must be digits alone")
    return value


def truth(value: object) -> object:
    """A form's text for a bool: as JSON writes it."""
    if isinstance(value, str) and value not in ("true", "false"):
        raise ValueError("must be true or false")
    return value


Status = Literal["queued", "processing", "completed", "failed", "cancelled"]
FormatName = Literal["wav", "wav24", "float32", "flac", "mp3", "m4a", "opus"]
Digits = Annotated[int, BeforeValidator(digits)]
Truth = Annotated[bool, BeforeValidator(truth)]
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
        description="What is done just now: wait, memory, start, decode, separate or encode; or "
        "what keeps everybody waiting: paused, no_consumer."
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


class UsedOptions(Schema):
    """The options as they are used, which may differ from what was asked: see `notes`."""

    stems: str
    rest: str
    segment: float | None
    shifts: int
    overlap: float
    split: bool


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


class Asked(Schema):
    """The form beside the file."""

    model: str = Field(
        "", max_length=100, description="One of `/api/models`; the default one if left out."
    )
    stems: str = Field(
        "all", max_length=40, description="`all`, or one stem to set against the rest of the song."
    )
    rest: Literal["mixture", "sum"] = Field(
        "mixture",
        description="How that rest is made: the mixture minus the stem, or the other stems' sum.",
    )
    segment: float | None = Field(
        None, ge=1, le=600, description="Seconds of a chunk; the model's own by default."
    )
    shifts: Digits = Field(
        0, ge=0, le=10, description="Passes over a song moved by up to half a second, averaged."
    )
    overlap: float = Field(
        0.25, ge=0, le=0.95, description="Share of a chunk that its neighbour covers too."
    )
    split: Truth = Field(True, description="`false`: the song in one piece, where the model can.")
    webhook_url: WebAddress | None = Field(
        None, description="An address to call when the song ends; see `webhooks`."
    )


class Wanted(Schema):
    """What a download is to be: the format, and the part of the song."""

    format: FormatName = "wav"
    bitrate: int | None = Field(
        None, description="kbit/s, for mp3, m4a and opus; the highest by default."
    )
    start: str = Field("", alias="from", description="Seconds; the beginning by default.")
    stop: str = Field("", alias="to", description="Seconds; the end by default.")
