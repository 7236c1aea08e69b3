"""API tokens: each lets a program act for an account, until it expires or its owner revokes it.

A token is random and shown once; the database stores its hash, by which it is found. Changing the
password revokes none of them, as programs have no session to end; they go with the account.
"""

import hashlib
import secrets
import uuid
from datetime import timedelta

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from separations.errors.fault import Fault
from separations.logs.secret_tokens import API_TOKEN, API_TOKEN_PREFIX
from separations.models import ApiToken, lifetimes

# How long a token may be valid, by its name in the form.
LIFETIMES: lifetimes.Lifetimes = {
    "30": timedelta(days=30),
    "90": timedelta(days=90),
    "365": timedelta(days=365),
    "never": None,
}
MAX_TOKENS = 20  # of one account
MAX_NAME_LENGTH = 60
HINT_LENGTH = 12  # of a token's beginning, which lists show


def create(
    user: User, name: str, lasting: str, token_id: uuid.UUID | None = None
) -> tuple[ApiToken, str]:
    """Create a token, and delete those of the account that have ended.

    Args:
        token_id: the new token's id, so that a form that is sent twice makes one token.

    Returns:
        Its row, and the token itself, which is not stored.

    Raises:
        Fault: bad_option for an unknown lifetime or a bad name; too_many_tokens; token_shown when
            a token with this id exists.
    """
    name = " ".join(name.split())
    expires_at = lifetimes.end_of(lasting, LIFETIMES)
    if not 0 < len(name) <= MAX_NAME_LENGTH or not name.isprintable():
        raise Fault("bad_option", option="name", allowed=f"1–{MAX_NAME_LENGTH}")
    text = API_TOKEN_PREFIX + secrets.token_urlsafe(32)
    with transaction.atomic():
        # Locked, so that two requests count one after the other.
        User.objects.select_for_update().filter(pk=user.pk).first()
        if token_id and ApiToken.objects.filter(pk=token_id).exists():
            raise Fault("token_shown")
        ApiToken.objects.filter(user=user).exclude(pk__in=_valid_ids(user)).delete()
        if ApiToken.objects.filter(user=user).count() >= MAX_TOKENS:
            raise Fault("too_many_tokens", most=MAX_TOKENS)
        token = ApiToken(
            pk=token_id or uuid.uuid4(),
            user=user,
            name=name,
            hint=text[:HINT_LENGTH],
            token_hash=_digest(text),
            expires_at=expires_at,
        )
        token.save(force_insert=True)
    return token, text


def _valid_ids(user: User) -> list[uuid.UUID]:
    tokens = ApiToken.objects.valid().filter(user=user)
    return list(tokens.values_list("pk", flat=True))


def list_tokens(user: User) -> list[ApiToken]:
    """The account's tokens without those that their owner revoked; newest first."""
    return list(ApiToken.objects.filter(user=user, revoked_at=None))


def find(text: str) -> ApiToken | None:
    """The token with this text, and its user, unless it has ended or the account is inactive."""
    if not API_TOKEN.fullmatch(text):
        return None
    tokens = ApiToken.objects.valid().select_related("user")
    token = tokens.filter(token_hash=_digest(text)).first()
    if token is not None:
        lifetimes.record_use(token, ApiToken.objects.all())
    return token


def revoke(user: User, token_id: uuid.UUID) -> bool:
    """Revoke a token of this account. Returns False where there is no such valid token."""
    return revoke_all(ApiToken.objects.filter(user=user, pk=token_id)) == 1


def revoke_all(tokens: QuerySet[ApiToken]) -> int:
    """Revoke those of `tokens` that are not revoked yet; returns how many."""
    return tokens.filter(revoked_at=None).order_by().update(revoked_at=timezone.now())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
