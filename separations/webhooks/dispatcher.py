"""Sends the webhook deliveries that are due, a few at once, until they arrive or are given up.

A delivery is claimed by a compare-and-set that moves its next attempt behind a lease. So several
consumers share the work, and an attempt of a consumer that died is repeated when its lease is over:
a delivery may arrive twice (its id tells), and is never lost. No job waits for a receiver, and no
receiver for another, as each has only its share of the attempts at once.
"""

import logging
import random
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from queue import Empty, SimpleQueue

from django.conf import settings
from django.db import close_old_connections, connection
from django.db.models import F, Q
from django.db.models.functions import Now

from separations.errors import database_outage
from separations.models import Delivery, DeliveryQuerySet
from separations.webhooks import events, http_client
from separations.webhooks.address_rules import BadAddress, parse
from separations.webhooks.http_client import Answer, CallFailed

logger = logging.getLogger(__name__)
State = Delivery.State
DELAYS = (5.0, 30.0, 120.0, 600.0, 3600.0, 6 * 3600.0)  # seconds between attempts
LONGEST_DELAY = DELAYS[-1]  # that a receiver may ask for by Retry-After
JITTER = 0.2  # of the delay, so that deliveries that failed together are not retried together
GONE = 410  # the receiver wants no more of this
LEASE = timedelta(seconds=3 * http_client.CALL_SECONDS)
POLL_SECONDS = 2.0
GRACE_SECONDS = 3.0  # for attempts that are under way when the consumer stops
MAX_AT_ONCE = 8
MAX_TO_ONE = 2  # to one host, and of one owner
MAX_OF_VISITORS = 4  # of all visitors together: one can pretend to be many

ShareHolder = tuple[str, str]  # a field of Delivery and its value
VISITORS: ShareHolder = ("job__visitor", "")


@dataclass(frozen=True)
class Attempt:
    """An attempt under way. number: of its delivery. holders: whose shares it counts for."""

    delivery: uuid.UUID
    number: int
    holders: tuple[ShareHolder, ...]


Outcome = Answer | CallFailed


class Dispatcher:
    """Runs one thread that claims and records, and one thread for each attempt under way."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._news: SimpleQueue[tuple[Attempt, Outcome] | None] = SimpleQueue()
        self._under_way: dict[uuid.UUID, Attempt] = {}
        self._ended: list[tuple[Attempt, Outcome]] = []

    def start(self) -> None:
        if settings.WEBHOOKS:
            self._thread.start()

    def wake(self) -> None:
        """Make it check for due deliveries now."""
        self._news.put(None)

    def stop(self) -> None:
        """Start no more attempts, and soon release those that are under way."""
        self._stopping.set()
        self.wake()

    def join(self, seconds: float) -> None:
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _work(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    close_old_connections()
                    self.run_once()
                except Exception as error:
                    # The rows are unchanged: the next round records what this one could not.
                    if not database_outage.log_if_outage(error):
                        logger.exception("The webhook dispatcher could not go on")
                    connection.close()
                self.wait(POLL_SECONDS)
            self.release()
        finally:
            connection.close()

    def run_once(self) -> None:
        """Record attempts that ended, and start those that are due."""
        self._record_ended()
        self._start_due()

    def wait(self, seconds: float) -> None:
        """Wait until an attempt ends or `wake` is called, and collect all attempts that ended."""
        try:
            news = self._news.get(timeout=seconds)
            while True:
                if news is not None:
                    self._ended.append(news)
                news = self._news.get_nowait()
        except Empty:
            pass

    # Starting

    def _start_due(self) -> None:
        while len(self._under_way) < MAX_AT_ONCE:
            held = Counter(who for each in self._under_way.values() for who in each.holders)
            due = Delivery.objects.due().select_related("job")
            # However many attempts of theirs are due, they delay no others.
            for holder, number in held.items():
                if number >= (MAX_OF_VISITORS if holder == VISITORS else MAX_TO_ONE):
                    due = due.exclude(_counted_for(holder))
            delivery = due.first()
            if delivery is None:
                return
            if claim(delivery):  # else another consumer was first
                self._start(delivery, _share_holders(delivery))

    def _start(self, delivery: Delivery, holders: tuple[ShareHolder, ...]) -> None:
        attempt = Attempt(delivery.pk, delivery.attempts, holders)
        body = delivery.body.encode()
        headers = events.signed_headers(delivery, round(time.time()))
        arguments = (attempt, delivery.url, body, headers)
        self._under_way[attempt.delivery] = attempt
        threading.Thread(target=self._send, args=arguments, daemon=True).start()

    def _send(self, attempt: Attempt, url: str, body: bytes, headers: dict[str, str]) -> None:
        self._news.put((attempt, send(url, body, headers)))

    # Ending

    def _record_ended(self) -> None:
        while self._ended:
            attempt, outcome = self._ended[0]
            record(attempt, outcome)
            self._ended.pop(0)
            self._under_way.pop(attempt.delivery, None)

    def release(self) -> None:
        """Wait GRACE_SECONDS for attempts to end; the next consumer repeats the others at once."""
        end = time.monotonic() + GRACE_SECONDS
        try:
            self._record_ended()
            while self._under_way and (left := end - time.monotonic()) > 0:
                self.wait(left)
                self._record_ended()
            for attempt in self._under_way.values():
                _current(attempt).update(next_at=Now(), attempts=F("attempts") - 1)
        except Exception:
            logger.exception("Webhook deliveries could not be released")  # their leases run out


def claim(delivery: Delivery) -> bool:
    """Claim the next attempt of a due delivery. Returns False when another consumer was first."""
    due = Delivery.objects.due().filter(pk=delivery.pk, attempts=delivery.attempts)
    if due.update(attempts=F("attempts") + 1, next_at=Now() + LEASE) != 1:
        return False
    delivery.attempts += 1
    return True


def send(url: str, body: bytes, headers: dict[str, str]) -> Outcome:
    try:
        target = parse(url)
        return http_client.post(target, body, headers, private=settings.WEBHOOK_PRIVATE_ADDRESSES)
    except BadAddress:
        return CallFailed("the address cannot be called")
    except CallFailed as failure:
        return failure
    except Exception:
        logger.exception("A webhook call went wrong")
        return CallFailed("something went wrong on this side")


def record(attempt: Attempt, outcome: Outcome) -> None:
    """Store an attempt's outcome: delivered, given up, or the time of the next attempt."""
    status = outcome.status if isinstance(outcome, Answer) else 0
    result = f"HTTP {status}" if isinstance(outcome, Answer) else outcome.reason
    arrived = 200 <= status < 300
    logger.info("Webhook %s: attempt %s: %s", attempt.delivery, attempt.number, result)
    if arrived or status == GONE or attempt.number > len(DELAYS):
        state = State.DELIVERED if arrived else State.GIVEN_UP
        # It arrived, even if another attempt has begun meanwhile.
        row = Delivery.objects.filter(pk=attempt.delivery) if arrived else _current(attempt)
        row.filter(state=State.WAITING).update(state=state, ended_at=Now(), outcome=result)
    else:
        requested = outcome.retry_after if isinstance(outcome, Answer) else None
        after = timedelta(seconds=delay(attempt.number, requested))
        _current(attempt).update(next_at=Now() + after, outcome=result)


def delay(attempt: int, requested: float | None) -> float:
    """Seconds until the attempt after this one: longer where the receiver asks for it."""
    usual = DELAYS[attempt - 1] * (1 + random.uniform(0, JITTER))  # noqa: S311 - no secret
    return max(usual, min(requested or 0.0, LONGEST_DELAY))


def _current(attempt: Attempt) -> DeliveryQuerySet:
    """The row, while this attempt is its latest."""
    return Delivery.objects.filter(
        pk=attempt.delivery, state=State.WAITING, attempts=attempt.number
    )


def _share_holders(delivery: Delivery) -> tuple[ShareHolder, ...]:
    """Whose shares an attempt counts for: its host's, its owner's, and all visitors'."""
    job = delivery.job
    host = ("host", delivery.host)
    if job.user_id:
        return host, ("job__user", str(job.user_id))
    return host, ("job__visitor", job.visitor), VISITORS


def _counted_for(holder: ShareHolder) -> Q:
    field, value = holder
    of_visitors = Q(job__user=None) if field == "job__visitor" else Q()
    return of_visitors if holder == VISITORS else of_visitors & Q(**{field: value})
