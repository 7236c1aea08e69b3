"""Limits password guessing: log-in attempts per account name, from known and unknown browsers.

A browser is known by a signed cookie that holds the id of the account it logged in to. It counts
for that account alone, whatever names look alike.
"""

import logging
import secrets

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, User
from django.db import DatabaseError
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from separations.fair_use import token_bucket
from separations.fair_use.address_ranges import widest_range
from separations.fair_use.client_address import client
from separations.models.account_names import fold

logger = logging.getLogger(__name__)
KNOWN = "known"  # the cookie
KNOWN_SECONDS = 365 * 24 * 3600  # longer than a session: it is needed for the log-in after that
# Attempts by unknown browsers once LIMIT_LOGINS_PER_NAME is used up: so many from one address
# range, and so many times that limit from all of them.
SPARE_PER_RANGE, SPARE_TIMES = 3, 10


def count_attempt(request: HttpRequest) -> None:
    """Count a log-in attempt by its account name, which slows down distributed guessing.

    Browsers that logged in to the account before have counts of their own, so a stranger's guesses
    do not lock its owner out of them (OWASP's "device cookies"). An unknown browser has a few
    attempts left in its own address range. Successful attempts are not counted.

    Raises:
        Fault: too_many_requests.
    """
    name = request.POST.get("username", "")
    if key := _name_key(name):
        request.__dict__["_tried"] = _count_by_name(request, name, key)


def _count_by_name(request: HttpRequest, name: str, key: str) -> list[token_bucket.Withdrawal]:
    """Count an attempt for a name; returns the withdrawals.

    The name is not looked up: the answer is the same whether the account exists or not.
    """
    most, seconds = settings.RATE_LIMITS["name"]
    if browser := _known_browser(request, name):
        own = [token_bucket.Withdrawal("known", browser, most, seconds)]
        token_bucket.withdraw(own)
        return own
    shared = [token_bucket.Withdrawal("name", key, most, seconds)]
    if not (wait := token_bucket.try_withdraw(shared)):
        return shared
    widest = widest_range(client(request))
    if not widest:
        raise token_bucket.too_many_requests(wait, "name")
    spare = [
        token_bucket.Withdrawal("spare", key, most * SPARE_TIMES, seconds),
        token_bucket.Withdrawal("spare", f"{key} {widest}", SPARE_PER_RANGE, seconds),
    ]
    token_bucket.withdraw(spare)
    return spare


def _name_key(name: str) -> str:
    """The same key for all spellings of a name that a form accepts for one account; "" for none.

    A form strips a name before it checks its length, and so does this. Names that are still too
    long count as one name, as a form might shorten them.
    """
    stripped = name.strip()
    return token_bucket.name_hash(f"account {fold(stripped)}") if stripped else ""


def _known_browser(request: HttpRequest, name: str) -> str:
    """The id of a browser that logged in to the account of this name before; else ""."""
    cookie = request.get_signed_cookie(KNOWN, default="", salt=KNOWN, max_age=KNOWN_SECONDS) or ""
    pk, _, browser = cookie.partition(".")
    if not pk.isdecimal() or not browser:  # of an earlier version
        return ""
    return browser if User.objects.filter(pk=pk, username=fold(name)).exists() else ""


def on_login(request: HttpRequest | None, user: AbstractBaseUser, **_signal: object) -> None:
    """Remember on the request which user logged in: a receiver of Django's signal."""
    if request is not None:
        request.__dict__["_logged_in"] = user


def finish(request: HttpRequest, response: HttpResponseBase) -> None:
    """After a request with a log-in: make the browser known, and refund the attempt."""
    user = request.__dict__.get("_logged_in")
    if user is None:
        return
    set_known_browser_cookie(response, user)
    try:
        token_bucket.refund(request.__dict__.get("_tried", []))
    except DatabaseError:
        logger.exception("A successful log-in was counted as a guess")


def set_known_browser_cookie(response: HttpResponseBase, user: AbstractBaseUser) -> None:
    """Make a browser known for an account, whose owner has just proved their identity."""
    response.set_signed_cookie(
        KNOWN,
        f"{user.pk}.{secrets.token_urlsafe(16)}",
        salt=KNOWN,
        max_age=KNOWN_SECONDS,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )
