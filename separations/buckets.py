"""Token buckets in the database: what a client, an account or a name may do in a time.

A bucket holds `count` tokens and is full again `seconds` after it was empty. Keys are keyed hashes,
so the table tells nobody's address or name.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.crypto import salted_hmac

from separations.models import Bucket

LONGEST = timedelta(days=1)  # no rate is over a longer time, so what is older is full


@dataclass(frozen=True)
class Withdrawal:
    """`cost` tokens out of the bucket of `who`, which holds at most `count` in `seconds`."""

    what: str
    who: str
    count: int
    seconds: int
    cost: float = 1.0

    @property
    def key(self) -> str:
        return name_hash(f"{self.what}:{self.who}")


def name_hash(name: str) -> str:
    return salted_hmac("separations.buckets", name, algorithm="sha256").hexdigest()


def take(withdrawals: Iterable[Withdrawal]) -> int:
    """Make all withdrawals, or none of them when one bucket holds too little.

    What costs more than a bucket ever holds passes when it is full.

    Returns:
        0, or after how many seconds to ask again.
    """
    # In one order, so that two requests never wait for each other. Who takes twice in a transaction
    # takes from the same kinds in the same order (see `quotas`).
    asked = sorted((each for each in withdrawals if each.count), key=lambda each: each.key)
    if not asked:
        return 0
    with transaction.atomic():
        held = _held(asked)
        wait = 0.0
        for each, row in zip(asked, held, strict=True):
            full = float(each.count)
            lacking = min(each.cost, full) - row.tokens
            wait = max(wait, lacking * each.seconds / full)
            row.tokens -= each.cost
        if wait <= 0:
            Bucket.objects.bulk_update(held, ["tokens", "updated_at"])
        else:
            transaction.set_rollback(True)  # refusals write nothing
    return math.ceil(wait) if wait > 0 else 0


def charge(used: Withdrawal) -> None:
    """Make a withdrawal of what was used already, also where the bucket holds too little.

    So much longer is the next wait; no more is ever owed than the bucket holds when it is full.
    """
    if not used.count:
        return
    with transaction.atomic():
        (row,) = _held([used])
        row.tokens = max(-float(used.count), row.tokens - used.cost)
        row.save(update_fields=["tokens", "updated_at"])


def _held(asked: list[Withdrawal]) -> list[Bucket]:
    """Their buckets as they are now, locked; those that are new are full."""
    now = timezone.now()
    fresh = [Bucket(key=each.key, tokens=each.count, updated_at=now) for each in asked]
    Bucket.objects.bulk_create(fresh, ignore_conflicts=True)
    # PostgreSQL locks the rows here; SQLite has let in a single writer since BEGIN IMMEDIATE.
    rows = Bucket.objects.select_for_update().filter(key__in=[each.key for each in asked])
    held = {row.key: row for row in rows.order_by("key")}
    now = timezone.now()  # after the wait for the lock
    for each in asked:
        row = held[each.key]
        passed = max(0.0, (now - row.updated_at).total_seconds())
        row.tokens = min(float(each.count), row.tokens + passed * each.count / each.seconds)
        row.updated_at = now
    return [held[each.key] for each in asked]


def idle() -> QuerySet[Bucket]:
    """Buckets that are full again, which say nothing."""
    return Bucket.objects.filter(updated_at__lt=timezone.now() - 2 * LONGEST)


def forget_idle() -> None:
    """Delete those, but for what a request holds just now: neither waits for the other."""
    free = idle().select_for_update(skip_locked=True)
    Bucket.objects.filter(pk__in=free.values("pk")).delete()
