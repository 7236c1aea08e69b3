"""Pages of songs that begin at a song, not at a number: songs that come or go move none."""

import base64
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db.models import Q
from django.utils.translation import gettext
from ninja.errors import ValidationError

from separations.models import Job, JobQuerySet

AFTER, BEFORE = "a", "b"


@dataclass(frozen=True)
class Page:
    """Songs, the newest first, with the cursors of the pages around them."""

    jobs: list[Job]
    next: str | None
    previous: str | None


def read(jobs: JobQuerySet, number: int, cursor: str) -> Page:
    """At most `number` of the songs, from where the cursor points; the newest for "".

    Raises:
        ValidationError: this is no cursor of ours.
    """
    way, when, key = _parse(cursor) if cursor else (AFTER, None, None)
    order = ["-created_at", "-pk"]
    if way == BEFORE:
        order = ["created_at", "pk"]
        jobs = jobs.filter(Q(created_at__gt=when) | Q(created_at=when, pk__gt=key))
    elif cursor:
        jobs = jobs.filter(Q(created_at__lt=when) | Q(created_at=when, pk__lt=key))
    found = list(jobs.order_by(*order)[: number + 1])
    is_more, found = len(found) > number, found[:number]
    if way == BEFORE:
        found.reverse()
    has_next = bool(found) if way == BEFORE else is_more
    has_previous = is_more if way == BEFORE else bool(cursor and found)
    return Page(
        found,
        _cursor(AFTER, found[-1]) if has_next else None,
        _cursor(BEFORE, found[0]) if has_previous else None,
    )


def _cursor(way: str, job: Job) -> str:
    text = f"{way}{job.created_at.isoformat()} {job.pk.hex}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _parse(cursor: str) -> tuple[str, datetime, uuid.UUID]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        when, _, key = text[1:].partition(" ")
        found = text[:1], datetime.fromisoformat(when).astimezone(UTC), uuid.UUID(key)
    except (ValueError, OverflowError):
        found = "", datetime.min, uuid.UUID(int=0)
    if found[0] not in (AFTER, BEFORE):
        message = gettext(
            "This is no cursor of this list. Send the `next_cursor` of an answer, or follow its "
            "`next` and `previous`."
        )
        raise ValidationError([{"loc": ("query", "cursor"), "msg": message, "type": "cursor"}])
    return found
