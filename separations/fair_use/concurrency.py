"""Limits on long requests at once: by client and by kind, so that threads are left for pages."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from threading import Lock

from django.conf import settings

from separations.errors.fault import Fault
from separations.fair_use.address_ranges import Range, ranges
from separations.fair_use.rate_limits import KINDS

SHARE_FOR_LONG_REQUESTS = 3 / 4  # of all threads; the rest serves pages


class Slots:
    """Counts this process's threads that serve long requests, by client and in all."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._held: Counter[str] = Counter()  # by kind
        # By kind and address range; all kinds together under "".
        self._of_range: Counter[tuple[str, str]] = Counter()

    def enter(self, kind: str, who: str) -> Callable[[], None]:
        """Occupy a slot; returns the function that frees it.

        Raises:
            Fault: too_many_at_once for this client; busy when all slots are occupied.
        """
        counted = ranges(who) or (Range(who),)
        threads, most = settings.WEB_THREADS, KINDS[kind].all
        with self._lock:
            left = max(2, int(threads * SHARE_FOR_LONG_REQUESTS)) - self._held.total()
            if most and self._held[kind] >= max(2, int(threads * most)):
                raise Fault("busy", wait=10)
            for each in counted:
                share = threads * KINDS[kind].share
                # Each of several greedy clients gets half of what the others left.
                for what, allowed in ((kind, max(2.0, share)), ("", max(1, left))):
                    if self._of_range[what, each.key] >= int(allowed * each.at_once):
                        raise Fault("too_many_at_once", wait=5)
            if left <= 0:
                raise Fault("busy", wait=10)
            self._held[kind] += 1
            self._of_range.update((what, each.key) for what in (kind, "") for each in counted)
        return partial(self._leave, kind, counted)

    def _leave(self, kind: str, counted: tuple[Range, ...]) -> None:
        with self._lock:
            self._held[kind] -= 1
            for key in [(what, each.key) for what in (kind, "") for each in counted]:
                self._of_range[key] -= 1
                if self._of_range[key] <= 0:
                    del self._of_range[key]


slots = Slots()
