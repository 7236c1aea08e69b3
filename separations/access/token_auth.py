"""Authentication of API requests by bearer tokens: an account's, or a visitor's.

A request with a token acts for the token's owner alone: a browser's session does not count beside
it.
"""

import uuid

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.core import signing
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.crypto import salted_hmac
from django.utils.deprecation import MiddlewareMixin

from separations.access import api_tokens
from separations.errors import problem_details
from separations.errors.fault import Fault
from separations.fair_use import rate_limits
from separations.fair_use.client_address import client
from separations.models import Job, Owner
from separations.uploads.submission import IdempotentRequest

VISITOR_PREFIX = "stemsite_visitor_"
SCHEME = "bearer"


class TokenAuthMiddleware(MiddlewareMixin):
    """Sets `request.token_owner` for API requests with a token, before limits and views run."""

    def process_request(self, request: HttpRequest) -> HttpResponseBase | None:
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if not problem_details.is_api_request(request) or scheme.lower() != SCHEME:
            return None
        try:
            request.token_owner = _token_owner(request, text.strip())  # type: ignore[attr-defined]
        except Fault as fault:
            return problem_details.response(_count_refusal(request, fault))
        return None


def _count_refusal(request: HttpRequest, fault: Fault) -> Fault:
    """Count a request with an invalid token as any API request; returns the fault to answer."""
    request.user = AnonymousUser()
    try:
        rate_limits.count_in_batches("api", request)
    except Fault as refused:
        return refused
    return fault


def _token_owner(request: HttpRequest, text: str) -> Owner:
    if text.startswith(VISITOR_PREFIX):
        request.user = AnonymousUser()
        visitor, task = _parse_visitor_token(text)
        return Owner(visitor, None, client(request), task)
    token = api_tokens.find(text) if settings.ACCOUNTS != "off" else None
    if token is None:
        raise Fault("unauthorized")
    request.user = token.user
    return Owner("", token.user_id, client(request))


def _parse_visitor_token(text: str) -> tuple[str, uuid.UUID | None]:
    """The visitor id in a token, and the id of the one job that a task token opens besides."""
    if settings.ACCOUNTS == "required" or not settings.API_ANONYMOUS:
        raise Fault("unauthorized")
    try:
        signed = text.removeprefix(VISITOR_PREFIX)
        named = _signer().unsign(signed, max_age=settings.SESSION_COOKIE_AGE)
    except signing.BadSignature:
        raise Fault("unauthorized") from None
    visitor, _, task = named.partition("-")
    return visitor, uuid.UUID(task) if task else None


def visitor_token(owner: Owner) -> str:
    """A token for all songs of a visitor without an account."""
    return VISITOR_PREFIX + _signer().sign(owner.visitor)


def task_token(job: Job) -> str:
    """A token for one job, and for songs that are sent with this very token afterwards.

    For requests with an Idempotency-Key and no token: a client that repeats one because its answer
    was lost reaches its song, and a client that sends the same key by chance reaches no other.
    """
    return VISITOR_PREFIX + _signer().sign(f"{uuid.uuid4().hex}-{job.pk.hex}")


def _signer() -> signing.TimestampSigner:
    return signing.TimestampSigner(salt="separations.askers", sep=".")


def new_visitor(request: HttpRequest, idempotency_key: str) -> Owner:
    """A new owner for a request without a token.

    A client that repeats a request because its answer was lost has no token: the same key from the
    same address range is the same visitor, whose token opens this song alone (see `task_token`).
    """
    who = client(request)
    visitor = uuid.uuid4().hex
    if idempotency_key and who:
        text = f"{who} {idempotency_key}"
        mac = salted_hmac("separations.newcomer", text, algorithm="sha256").hexdigest()[:32]
        once = IdempotentRequest.of(Owner(mac), idempotency_key)
        # Not after the key was deleted: it would open whatever was sent since.
        if once.is_known() or not Job.objects.filter(visitor=mac).exists():
            visitor = mac
    owner = Owner(visitor, None, who)
    request.token_owner = owner  # type: ignore[attr-defined]
    return owner
