"""API tokens: each lets a program act for an account, until it ends or its owner ends it.

A token is random and shown once; what is kept is its hash, by which it is found. Changing the
password ends none of them, as programs are not logged out by it; they go with the account.
"""

import hashlib
import logging
import secrets
import uuid
from datetime import timedelta

from django.contrib.auth.models import User
from django.db import DatabaseError, transaction
from django.utils import timezone

from separations.faults import Fault
from separations.models import ApiToken
from separations.share_tokens import API_TOKEN, API_TOKEN_PREFIX

logger = logging.getLogger(__name__)
# How long a token may last, by its name in the form.
LASTING: dict[str, timedelta | None] = {
    "30": timedelta(days=30),
    "90": timedelta(days=90),
    "365": timedelta(days=365),
    "never": None,
}
MOST_TOKENS = 20  # an account, at a time
MOST_CHARACTERS = 60  # of a name
HINT = 12
USE_IS_NOTED_EVERY = timedelta(minutes=1)


def create(
    user: User, name: str, lasting: str, token_id: uuid.UUID | None = None
) -> tuple[ApiToken, str]:
    """Make a token. Those of the account that have ended are forgotten.

    Args:
        token_id: the id it is to have, so that a form that is sent twice makes one token.

    Returns:
        Its row, and the token itself, which nobody can find out later.

    Raises:
        Fault: bad_option when there is no such time to last, or for the name; too_many_tokens;
            token_shown when there is a token of this id already.
    """
    name = " ".join(name.split())
    if lasting not in LASTING:
        raise Fault("bad_option", option="lasts", allowed=", ".join(LASTING))
    if not 0 < len(name) <= MOST_CHARACTERS or not name.isprintable():
        raise Fault("bad_option", option="name", allowed=f"1–{MOST_CHARACTERS}")
    lasts = LASTING[lasting]
    text = API_TOKEN_PREFIX + secrets.token_urlsafe(32)
    with transaction.atomic():
        User.objects.select_for_update().filter(pk=user.pk).first()  # one at a time counts
        if token_id and ApiToken.objects.filter(pk=token_id).exists():
            raise Fault("token_shown")
        ApiToken.objects.filter(user=user).exclude(pk__in=_kept(user)).delete()
        if ApiToken.objects.filter(user=user).count() >= MOST_TOKENS:
            raise Fault("too_many_tokens", most=MOST_TOKENS)
        token = ApiToken(
            pk=token_id or uuid.uuid4(),
            user=user,
            name=name,
            hint=text[:HINT],
            token_hash=_digest(text),
            expires_at=timezone.now() + lasts if lasts else None,
        )
        token.save(force_insert=True)
    return token, text


def _kept(user: User) -> list[uuid.UUID]:
    tokens = ApiToken.objects.valid().filter(user=user)
    return list(tokens.values_list("pk", flat=True))


def listed(user: User) -> list[ApiToken]:
    """The account's tokens, but for those that their owner ended; newest first."""
    return list(ApiToken.objects.filter(user=user, revoked_at=None))


def find(text: str) -> ApiToken | None:
    """The token that reads so, with its user, unless it has ended or the user is locked out."""
    if not API_TOKEN.fullmatch(text):
        return None
    tokens = ApiToken.objects.valid().select_related("user")
    token = tokens.filter(token_hash=_digest(text)).first()
    if token is not None:
        _note_use(token)
    return token


def _note_use(token: ApiToken) -> None:
    """Note when it was last used, once a minute only; a use is not refused because of that."""
    now = timezone.now()
    if token.used_at is not None and now - token.used_at < USE_IS_NOTED_EVERY:
        return
    try:
        ApiToken.objects.filter(pk=token.pk).update(used_at=now)
    except DatabaseError:
        logger.exception("The use of a token could not be noted")


def revoke(user: User, token_id: uuid.UUID) -> bool:
    """End a token of this account at once. Says whether there was one to end."""
    tokens = ApiToken.objects.filter(user=user, pk=token_id, revoked_at=None)
    return tokens.update(revoked_at=timezone.now()) == 1


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
