"""Counts of requests that this process has not yet written to the database."""

import time
from threading import Lock

MAX_CLIENTS = 10_000


class UnwrittenCounts:
    """Requests of this process that are not in the database's buckets yet, by client and account.

    Past MAX_CLIENTS all are dropped: memory stays bounded, and little is lost.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._numbers: dict[str, tuple[int, float]] = {}  # and when they expire
        self._held: set[str] = set()

    def add(self, who: str, number: int, seconds: int) -> int:
        """Add to a client's count; returns the new one."""
        now = time.monotonic()
        with self._lock:
            if len(self._numbers) >= MAX_CLIENTS:
                self._numbers.clear()
            before, until = self._numbers.get(who, (0, 0.0))
            if until < now:
                before, until = 0, now + seconds
            self._numbers[who] = (max(0, before + number), until)
            return self._numbers[who][0]

    def hold(self, who: str) -> bool:
        """Whether the caller may write the count now: one thread at a time does."""
        with self._lock:
            if who in self._held:
                return False
            self._held.add(who)
            return True

    def let_go(self, who: str) -> None:
        with self._lock:
            self._held.discard(who)
