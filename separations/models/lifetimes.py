"""Lifetimes: until when songs, results, records, links and tokens are kept, and their last use."""

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol

from django.conf import settings
from django.db import DatabaseError
from django.db.models import Q, QuerySet
from django.utils import timezone

from separations.errors.fault import Fault

logger = logging.getLogger(__name__)
Lifetimes = Mapping[str, timedelta | None]  # by their names in a form; None: without an end
IDEMPOTENCY_KEYS = timedelta(days=1)
USE_RECORDED_EVERY = timedelta(minutes=1)  # players ask for many small ranges
IN_USE = timedelta(minutes=10)  # after the last recorded use, a result counts as in use


# By the clock


def uploads_kept_since() -> datetime:
    """A song whose last job ended before this is deleted."""
    return timezone.now() - timedelta(minutes=settings.KEEP_UPLOADS_MINUTES)


def results_kept_since() -> datetime:
    """A result that was last used before this is deleted."""
    return timezone.now() - timedelta(hours=settings.KEEP_RESULTS_HOURS)


def records_kept_since() -> datetime:
    """The record of a job that has had no stems since before this is deleted."""
    return timezone.now() - timedelta(days=settings.KEEP_JOBS_DAYS)


def idempotency_keys_kept_since() -> datetime:
    """A key that came before this is forgotten: its request will not be repeated."""
    return timezone.now() - IDEMPOTENCY_KEYS


def results_in_use_since() -> datetime:
    """A result that was used after this is in use: it is not deleted to make room."""
    return timezone.now() - IN_USE


# Links and tokens, with `expires_at` and `revoked_at`


def is_open() -> Q:
    """Links or tokens that have not ended: neither by time nor by their owner."""
    return (Q(expires_at=None) | Q(expires_at__gt=timezone.now())) & Q(revoked_at=None)


def end_of(lasting: str, choices: Lifetimes) -> datetime | None:
    """When a link or token made now ends; None for never.

    Args:
        lasting: the name of one of `choices`, as the form sends it.

    Raises:
        Fault: bad_option when there is no such choice.
    """
    if lasting not in choices:
        raise Fault("bad_option", option="lasts", allowed=", ".join(choices))
    lasts = choices[lasting]
    return timezone.now() + lasts if lasts else None


# Last use


class UsedRow(Protocol):
    """A row with the time of its last use."""

    pk: Any
    used_at: datetime | None


def record_use(row: UsedRow, rows: QuerySet[Any]) -> None:
    """Record that a row is used now, once a minute only; a failure is logged, the use goes on.

    Args:
        rows: those of which the row must still be one.
    """
    now = timezone.now()
    if row.used_at is not None and now - row.used_at < USE_RECORDED_EVERY:
        return
    row.used_at = now
    try:
        rows.filter(pk=row.pk).update(used_at=now)
    except DatabaseError:
        logger.exception("%s %s: its use could not be recorded", type(row).__name__, row.pk)
