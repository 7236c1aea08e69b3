"""Sends the webhook calls that are due: a few at once, none of them twice at once, each until it
arrived or was tried often enough.

A call is claimed by a compare-and-set that puts its next attempt behind a lease, so that several
consumers share the work, and what a consumer that died was at is sent again when the lease is over.
So a call can arrive more than once (its id tells), and never gets lost. Nothing waits for the
receivers: no job, and no other receiver, as none takes more than its share of the calls at once.
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

from separations import outgoing, webhooks
from separations.addresses import BadAddress, parse
from separations.models import Delivery, DeliveryQuerySet
from separations.outgoing import Answer, CallFailed

logger = logging.getLogger(__name__)
State = Delivery.State
DELAYS = (5.0, 30.0, 120.0, 600.0, 3600.0, 6 * 3600.0)  # seconds between attempts
LONGEST_DELAY = DELAYS[-1]  # that a receiver may ask for
JITTER = 0.2  # of the delay, so that what failed together is not tried together
GONE = 410  # the receiver's word that it wants no more of this
LEASE = timedelta(seconds=3 * outgoing.CALL_SECONDS)
LOOK_SECONDS = 2.0
GRACE_SECONDS = 3.0  # for calls that are under way when the consumer stops
AT_ONCE = 8
AT_ONCE_TO_ONE = 2  # host, and of one owner
AT_ONCE_OF_VISITORS = 4  # of all together: without an account, anybody is as many as they like


Sharer = tuple[str, str]  # the field that tells them, and its value
VISITORS: Sharer = ("job__visitor", "")


@dataclass(frozen=True)
class Call:
    """A delivery under way. attempt: its number. sharers: whose shares it counts for."""

    delivery: uuid.UUID
    attempt: int
    sharers: tuple[Sharer, ...]


Outcome = Answer | CallFailed


class Courier:
    """One thread that claims and records, and one for each call that is under way."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._news: SimpleQueue[tuple[Call, Outcome] | None] = SimpleQueue()
        self._under_way: dict[uuid.UUID, Call] = {}
        self._ended: list[tuple[Call, Outcome]] = []

    def start(self) -> None:
        if settings.WEBHOOKS:
            self._thread.start()

    def call(self) -> None:
        """Have it look for what is due now."""
        self._news.put(None)

    def stop(self) -> None:
        """Start nothing more, and soon give back what is under way."""
        self._stopping.set()
        self.call()

    def join(self, seconds: float) -> None:
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _work(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    close_old_connections()
                    self.look()
                except Exception:
                    # The rows are there: what could not be recorded is recorded next time.
                    logger.exception("The courier could not go on")
                    connection.close()
                self.wait(LOOK_SECONDS)
            self.give_back()
        finally:
            connection.close()

    def look(self) -> None:
        """Record what ended, and start what is due."""
        self._record_ended()
        self._start_due()

    def wait(self, seconds: float) -> None:
        """Wait until something happens, and take note of all that did."""
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
        while len(self._under_way) < AT_ONCE:
            held = Counter(who for call in self._under_way.values() for who in call.sharers)
            due = Delivery.objects.due().select_related("job")
            # However many calls of theirs are due, they stand before nobody else's.
            for sharer, calls in held.items():
                if calls >= (AT_ONCE_OF_VISITORS if sharer == VISITORS else AT_ONCE_TO_ONE):
                    due = due.exclude(_of(sharer))
            delivery = due.first()
            if delivery is None:
                return
            if claim(delivery):  # else another consumer was first
                self._start(delivery, _sharers(delivery))

    def _start(self, delivery: Delivery, sharers: tuple[Sharer, ...]) -> None:
        call = Call(delivery.pk, delivery.attempts, sharers)
        body = delivery.body.encode()
        headers = webhooks.headers_of(delivery, round(time.time()))
        arguments = (call, delivery.url, body, headers)
        self._under_way[call.delivery] = call
        threading.Thread(target=self._send, args=arguments, daemon=True).start()

    def _send(self, call: Call, url: str, body: bytes, headers: dict[str, str]) -> None:
        self._news.put((call, send(url, body, headers)))

    # Ending

    def _record_ended(self) -> None:
        while self._ended:
            call, outcome = self._ended[0]
            record(call, outcome)
            self._ended.pop(0)
            self._under_way.pop(call.delivery, None)

    def give_back(self) -> None:
        """Have what does not end within a moment sent by the next consumer at once."""
        end = time.monotonic() + GRACE_SECONDS
        try:
            self._record_ended()
            while self._under_way and (left := end - time.monotonic()) > 0:
                self.wait(left)
                self._record_ended()
            for call in self._under_way.values():
                _held(call).update(next_at=Now(), attempts=F("attempts") - 1)
        except Exception:
            logger.exception("Webhook calls could not be given back")  # their leases run out


def claim(delivery: Delivery) -> bool:
    """Take the next attempt of a delivery that is due. False when somebody else has."""
    due = Delivery.objects.due().filter(pk=delivery.pk, attempts=delivery.attempts)
    if due.update(attempts=F("attempts") + 1, next_at=Now() + LEASE) != 1:
        return False
    delivery.attempts += 1
    return True


def send(url: str, body: bytes, headers: dict[str, str]) -> Outcome:
    try:
        target = parse(url)
        return outgoing.post(target, body, headers, private=settings.WEBHOOK_PRIVATE_ADDRESSES)
    except BadAddress:
        return CallFailed("the address cannot be called")
    except CallFailed as failure:
        return failure
    except Exception:
        logger.exception("A webhook call went wrong")
        return CallFailed("something went wrong on this side")


def record(call: Call, outcome: Outcome) -> None:
    """Write down how an attempt went: delivered, given up, or when the next one is."""
    status = outcome.status if isinstance(outcome, Answer) else 0
    told = f"HTTP {status}" if isinstance(outcome, Answer) else outcome.reason
    arrived = 200 <= status < 300
    logger.info("Webhook %s: attempt %s: %s", call.delivery, call.attempt, told)
    if arrived or status == GONE or call.attempt > len(DELAYS):
        state = State.DELIVERED if arrived else State.GIVEN_UP
        # It arrived, even if it took so long that another attempt has begun.
        row = Delivery.objects.filter(pk=call.delivery) if arrived else _held(call)
        row.filter(state=State.WAITING).update(state=state, ended_at=Now(), outcome=told)
    else:
        wished = outcome.retry_after if isinstance(outcome, Answer) else None
        after = timedelta(seconds=delay(call.attempt, wished))
        _held(call).update(next_at=Now() + after, outcome=told)


def delay(attempt: int, wished: float | None) -> float:
    """Seconds until the next attempt after this one; longer where the receiver wishes so."""
    usual = DELAYS[attempt - 1] * (1 + random.uniform(0, JITTER))  # noqa: S311 - no secret
    return max(usual, min(wished or 0.0, LONGEST_DELAY))


def _held(call: Call) -> DeliveryQuerySet:
    """The row, while this attempt is its latest."""
    return Delivery.objects.filter(pk=call.delivery, state=State.WAITING, attempts=call.attempt)


def _sharers(delivery: Delivery) -> tuple[Sharer, ...]:
    """Whose share of the calls a delivery counts for: its host's, its owner's, the visitors'."""
    job = delivery.job
    host = ("host", delivery.host)
    if job.user_id:
        return host, ("job__user", str(job.user_id))
    return host, ("job__visitor", job.visitor), VISITORS


def _of(sharer: Sharer) -> Q:
    field, value = sharer
    nobodys = Q(job__user=None) if field == "job__visitor" else Q()
    return nobodys if sharer == VISITORS else nobodys & Q(**{field: value})
