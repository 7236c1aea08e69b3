"""Rate limits: `@limited("upload")` marks a view, and requests are counted by client and account.

`middleware.RateLimitMiddleware` counts a marked view before it runs. Views call `count_request` for
what they do besides.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from django.conf import settings
from django.db import transaction
from django.http import HttpRequest

from separations.fair_use import quotas, token_bucket
from separations.fair_use.address_ranges import widest_range
from separations.fair_use.client_address import client
from separations.fair_use.unwritten_counts import UnwrittenCounts

View = TypeVar("View", bound=Callable[..., Any])
BATCHES_PER_LIMIT = 20  # how many writes it takes to use a limit up


@dataclass(frozen=True)
class Kind:
    """How a kind of request is limited.

    safe: GET and HEAD count too.
    share: of all threads that one client may occupy; 0 for no limit.
    all: the share that all clients together may occupy; 0 for no limit of this kind's own.
    often: so frequent that counts are written in batches, see `count_in_batches`.
    """

    safe: bool = False
    share: float = 0.0
    all: float = 0.0
    often: bool = False


# A kind without a setting in RATE_LIMITS has only the limit of requests at once.
KINDS = {
    "upload": Kind(share=1 / 4),
    "login": Kind(),
    "signup": Kind(),
    "reset": Kind(),
    "action": Kind(),
    "download": Kind(safe=True, share=1 / 4),
    "listen": Kind(safe=True, share=1 / 4),
    "api": Kind(safe=True, often=True),
    "events": Kind(safe=True, share=1 / 16, all=1 / 4),  # streams last for minutes
}


def limited(kind: str, **of_methods: str) -> Callable[[View], View]:
    """Mark a view as limited; for a class `method_decorator(limited(kind), name="dispatch")`.

    of_methods: other kinds for some methods, such as `GET="api"`.
    """
    if not {kind, *of_methods.values()} <= set(KINDS):
        raise ValueError(kind)

    def mark(view: View) -> View:
        view.limited = {"": kind, **of_methods}  # type: ignore[attr-defined]
        return view

    return mark


def count_request(kind: str, request: HttpRequest) -> None:
    """Count a request for its client and account. (`quotas.count_for_site` counts for the site.)

    Raises:
        Fault: too_many_requests.
    """
    token_bucket.withdraw(_withdrawals(kind, request))


def count_in_batches(kind: str, request: HttpRequest) -> None:
    """Count like `count_request`, but write a twentieth of a limit at a time.

    SQLite has one writer, which frequent small requests would hold up. Requests that this process
    has not written yet count as well.

    Raises:
        Fault: too_many_requests.
    """
    count, seconds = settings.RATE_LIMITS.get(kind, (0, 0))
    if not count:
        return
    who = _counted(kind, request)
    number = _unwritten_counts.add(who, 1, seconds)
    writes = number >= max(1, count // BATCHES_PER_LIMIT) and _unwritten_counts.hold(who)
    if writes:
        # Again: another thread may have written some meanwhile.
        number = _unwritten_counts.add(who, 0, seconds)
    own = _withdrawals(kind, request, number)
    try:
        if writes:
            token_bucket.withdraw(own)
            _unwritten_counts.add(who, -number, seconds)
        else:
            wait, left = token_bucket.look(own)
            # For `standing`: a request that is refused costs nothing.
            request.__dict__["_tokens_left"] = {kind: left + 1 if wait else left}
            if wait:
                raise token_bucket.too_many_requests(wait, kind)
    except BaseException:
        _unwritten_counts.add(who, -1, seconds)  # what is refused does not count
        raise
    finally:
        if writes:
            _unwritten_counts.let_go(who)


_unwritten_counts = UnwrittenCounts()


def _counted(kind: str, request: HttpRequest) -> str:
    """Whose unwritten count a request adds to."""
    return f"{kind} {widest_range(client(request))} {request.user.pk}"


@dataclass(frozen=True)
class Standing:
    """How a client stands with a limit: `quota` in `window` seconds, of which `left` are left.

    pace: the seconds in which the client may use what is left and never be refused; when nothing is
        left, those until something is.
    """

    kind: str
    quota: int
    window: int
    left: int
    pace: int


def standing(kind: str, request: HttpRequest) -> Standing | None:
    """How the client and account of a request stand with a limit, None where there is none.

    Counting has mostly read it already; else this queries the database.
    """
    quota, window = settings.RATE_LIMITS.get(kind, (0, 0))
    if not quota:
        return None
    left = request.__dict__.get("_tokens_left", {}).get(kind)
    if left is None:
        unwritten = _unwritten_counts.add(_counted(kind, request), 0, window)
        left = token_bucket.tokens_left(_withdrawals(kind, request, unwritten))
    whole = quota if left >= quota else max(0, math.floor(left))
    seconds = (whole or 1 - left) * window / quota
    return Standing(kind, quota, window, whole, max(1, math.ceil(seconds)))


def count_with_site(kind: str, request: HttpRequest, number: int = 1) -> None:
    """Count `number` requests for the client, the account and the site: all of them, or none.

    Raises:
        Fault: too_many_requests, or site_limit where all visitors together reached it.
    """
    with transaction.atomic():  # what the site's limit refuses does not count for the visitor
        token_bucket.withdraw(_withdrawals(kind, request, number))
        quotas.count_for_site(kind, number)


def _withdrawals(
    kind: str, request: HttpRequest, cost: float = 1.0
) -> list[token_bucket.Withdrawal]:
    rate = settings.RATE_LIMITS.get(kind, (0, 0))
    withdrawals = token_bucket.of_client(kind, client(request), rate, cost)
    if request.user.is_authenticated:
        withdrawals.append(token_bucket.Withdrawal(kind, f"user {request.user.pk}", *rate, cost))
    return withdrawals
