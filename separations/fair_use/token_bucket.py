"""Token buckets in the database: how often a client, an account or a name may do something.

A bucket holds `count` tokens and refills within `seconds`. Keys are keyed hashes, so the table
holds no addresses and no names.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.crypto import salted_hmac

from separations.errors.fault import Fault
from separations.fair_use.address_ranges import ranges
from separations.models import Bucket

LONGEST_PERIOD = timedelta(days=1)  # no bucket takes longer to refill


@dataclass(frozen=True)
class Withdrawal:
    """`cost` tokens from the bucket of `who`, which holds `count` and refills within `seconds`."""

    what: str
    who: str
    count: int
    seconds: int
    cost: float = 1.0

    @property
    def key(self) -> str:
        return name_hash(f"{self.what}:{self.who}")


def of_client(what: str, client: str, rate: tuple[int, int], cost: float = 1.0) -> list[Withdrawal]:
    """Withdrawals from a client's own bucket and from those of the ranges that contain it."""
    count, seconds = rate
    return [
        Withdrawal(what, f"client {each.key}", count * each.factor, seconds, cost)
        for each in ranges(client)
    ]


def name_hash(name: str) -> str:
    return salted_hmac("separations.buckets", name, algorithm="sha256").hexdigest()


def try_withdraw(withdrawals: Iterable[Withdrawal]) -> int:
    """Make all withdrawals, or none of them when one bucket holds too little.

    A cost above a bucket's size passes when the bucket is full.

    Returns:
        0, or the seconds until a retry can succeed.
    """
    # Sorted, so that two requests never wait for each other. Code that withdraws twice in one
    # transaction does so from the same kinds in the same order (see `quotas`).
    asked = sorted((each for each in withdrawals if each.count), key=lambda each: each.key)
    if not asked:
        return 0
    # Only a read: a flood of refused requests keeps no writer waiting.
    if wait := seconds_to_wait(asked):
        return wait
    with transaction.atomic():
        held = _lock_buckets(asked)
        seconds = _seconds_to_wait(asked, held)
        for each, row in zip(asked, held, strict=True):
            row.tokens -= each.cost
        if seconds <= 0:
            Bucket.objects.bulk_update(held, ["tokens", "updated_at"])
        else:
            transaction.set_rollback(True)  # refusals write nothing
    return math.ceil(seconds) if seconds > 0 else 0


def seconds_to_wait(withdrawals: Iterable[Withdrawal]) -> int:
    """What `try_withdraw` would return now. Reads only."""
    return look(withdrawals)[0]


def look(withdrawals: Iterable[Withdrawal]) -> tuple[int, float]:
    """What `try_withdraw` would return now, and what the emptiest of the buckets would hold after
    the withdrawals. Reads only, by one query."""
    asked = [each for each in withdrawals if each.count]
    now = timezone.now()
    stored = Bucket.objects.in_bulk([each.key for each in asked])
    found = [(each, stored[each.key]) for each in asked if each.key in stored]
    for each, row in found:
        _refill(each, row, now)
    seconds = _seconds_to_wait([each for each, _row in found], [row for _each, row in found])
    left = [row.tokens - each.cost for each, row in found]
    left += [each.count - each.cost for each in asked if each.key not in stored]
    return math.ceil(seconds) if seconds > 0 else 0, min(left, default=math.inf)


def _seconds_to_wait(asked: list[Withdrawal], held: list[Bucket]) -> float:
    """Seconds until all buckets hold enough; 0 or less if they do now."""
    wait = 0.0
    for each, row in zip(asked, held, strict=True):
        full = float(each.count)
        wait = max(wait, (min(each.cost, full) - row.tokens) * each.seconds / full)
    return wait


def _refill(each: Withdrawal, row: Bucket, now: datetime) -> None:
    """Add the tokens that came in since the bucket was last written."""
    passed = max(0.0, (now - row.updated_at).total_seconds())
    row.tokens = min(float(each.count), row.tokens + passed * each.count / each.seconds)
    row.updated_at = now


def withdraw(withdrawals: Iterable[Withdrawal]) -> None:
    """Make all withdrawals. Raises Fault (too_many_requests), with nothing withdrawn."""
    asked = list(withdrawals)
    if wait := try_withdraw(asked):
        raise too_many_requests(wait, asked[0].what)


def too_many_requests(wait: int, limit: str) -> Fault:
    return Fault("too_many_requests", wait=wait, limit=limit)


def tokens_left(withdrawals: Iterable[Withdrawal]) -> float:
    """What the emptiest of the buckets would hold after the withdrawals. Reads only."""
    return look(withdrawals)[1]


def charge(withdrawals: Iterable[Withdrawal]) -> None:
    """Withdraw for what was used already, even where a bucket holds too little.

    The debt, at most one full bucket, lengthens the next wait.
    """
    used = sorted((each for each in withdrawals if each.count), key=lambda each: each.key)
    if not used:
        return
    with transaction.atomic():
        held = _lock_buckets(used)
        for each, row in zip(used, held, strict=True):
            row.tokens = max(-float(each.count), row.tokens - each.cost)
        Bucket.objects.bulk_update(held, ["tokens", "updated_at"])


def refund(withdrawals: Iterable[Withdrawal]) -> None:
    """Undo withdrawals."""
    charge(replace(each, cost=-each.cost) for each in withdrawals)


def _lock_buckets(asked: list[Withdrawal]) -> list[Bucket]:
    """The buckets of the withdrawals, locked and refilled; new ones are full."""
    keys = {each.key for each in asked}
    held: dict[str, Bucket] = {}
    while held.keys() != keys:  # again where a full one was deleted between the two queries
        now = timezone.now()
        fresh = [Bucket(key=each.key, tokens=each.count, updated_at=now) for each in asked]
        Bucket.objects.bulk_create(fresh, ignore_conflicts=True)
        # PostgreSQL locks the rows here; SQLite has let in a single writer since BEGIN IMMEDIATE.
        rows = Bucket.objects.select_for_update().filter(key__in=keys)
        held = {row.key: row for row in rows.order_by("key")}
    now = timezone.now()  # after the wait for the lock
    for each in asked:
        _refill(each, held[each.key], now)
    return [held[each.key] for each in asked]


def full_buckets() -> QuerySet[Bucket]:
    """Buckets that are certainly full again: their rows hold no information."""
    return Bucket.objects.filter(updated_at__lt=timezone.now() - 2 * LONGEST_PERIOD)


def delete_full() -> None:
    """Delete full buckets, but skip rows that a request has locked: neither waits for the other."""
    free = full_buckets().select_for_update(skip_locked=True)
    Bucket.objects.filter(pk__in=free.values("pk")).delete()
