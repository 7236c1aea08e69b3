"""Programs that ask: by a token of an account, or by one that a visitor without account was given.

Whoever sends a token is who the token says and nobody else: the session of a browser does not count
beside it.
"""

import uuid

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.core import signing
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.crypto import salted_hmac
from django.utils.deprecation import MiddlewareMixin

from separations import problems, rate_limits, tokens
from separations.clients import client
from separations.faults import Fault
from separations.intake import Once
from separations.models import Job, Owner

VISITOR = "stemsite_visitor_"
SCHEME = "bearer"


class Askers(MiddlewareMixin):
    """Knows who sends a token to the API, before anything is counted or decided."""

    def process_request(self, request: HttpRequest) -> HttpResponseBase | None:
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if not problems.is_for_programs(request) or scheme.lower() != SCHEME:
            return None
        try:
            request.asker = _asker(request, text.strip())  # type: ignore[attr-defined]
        except Fault as fault:
            return problems.response(_counted(request, fault))
        return None


def _counted(request: HttpRequest, fault: Fault) -> Fault:
    """What to answer to a token that is none, which is counted as all that programs ask for."""
    request.user = AnonymousUser()
    try:
        rate_limits.take("api", request)
    except Fault as refused:
        return refused
    return fault


def _asker(request: HttpRequest, text: str) -> Owner:
    if text.startswith(VISITOR):
        request.user = AnonymousUser()
        return Owner(_visitor_of(text), None, client(request))
    token = tokens.find(text) if settings.ACCOUNTS != "off" else None
    if token is None:
        raise Fault("unauthorized")
    request.user = token.user
    return Owner("", token.user_id, client(request))


def _visitor_of(text: str) -> str:
    if settings.ACCOUNTS == "required" or not settings.API_ANONYMOUS:
        raise Fault("unauthorized")
    try:
        signed = text.removeprefix(VISITOR)
        return _signer().unsign(signed, max_age=settings.SESSION_COOKIE_AGE)
    except signing.BadSignature:
        raise Fault("unauthorized") from None


def token_of(owner: Owner) -> str:
    """What lets a visitor without account ask for their songs again."""
    return VISITOR + _signer().sign(owner.visitor)


def _signer() -> signing.TimestampSigner:
    return signing.TimestampSigner(salt="separations.askers", sep=".")


def newcomer(request: HttpRequest, idempotency_key: str) -> Owner:
    """A visitor who has no token yet.

    Whoever repeats a request because its answer was lost never got one: the same key from the same
    network is the same visitor.
    """
    who = client(request)
    visitor = uuid.uuid4().hex
    if idempotency_key and who:
        text = f"{who} {idempotency_key}"
        mac = salted_hmac("separations.newcomer", text, algorithm="sha256").hexdigest()[:32]
        once = Once.of(Owner(mac), idempotency_key)
        # Not once the request is forgotten: the key would open whatever was sent since.
        if once.is_known() or not Job.objects.filter(visitor=mac).exists():
            visitor = mac
    owner = Owner(visitor, None, who)
    request.asker = owner  # type: ignore[attr-defined]
    return owner
