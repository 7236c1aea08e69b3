"""E-mails of accounts: address confirmation and password reset, limited by recipient and by site.

A mail to an unconfirmed address contains no text that a stranger chose.
"""

import contextlib
import logging
from typing import Any

from django.conf import settings
from django.contrib.auth.forms import PasswordResetForm
from django.contrib.auth.models import User
from django.contrib.auth.tokens import default_token_generator
from django.core import signing
from django.core.mail import EmailMessage
from django.db import transaction
from django.db.models import F
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import translation
from django.utils.crypto import constant_time_compare, salted_hmac
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

from separations.fair_use import token_bucket
from separations.models import AddressChanges, account_names

logger = logging.getLogger(__name__)
SALT = "separations.mails.confirm"
FOR_STRANGERS = 4 / 5  # of the site's mails; the rest is for confirmed addresses
# How many address ranges together can use up a confirmed address's mails. One alone uses its own
# share: it cannot keep the account's owner, who asks from elsewhere, from getting a link.
RANGES = 4


# Addresses, and limits


def is_unquoted(address: str) -> bool:
    """Whether an address has a single spelling and cannot break a mail's headers.

    In a quoted local part ("anna"@example.org) every letter has two spellings.
    """
    return address.isprintable() and not set('"\\()<>[]:;, ') & set(address)


def recipient(address: str) -> str:
    """A mailbox's key for counting: the same for all spellings that providers deliver to it.

    It drops dots and what follows a plus, which some providers ignore. Elsewhere two mailboxes
    share a count, which does no harm.
    """
    local, _, domain = account_names.fold(address).rpartition("@")
    with contextlib.suppress(UnicodeError):  # such a name has no mail server either
        domain = domain.encode("idna").decode()
    return f"{local.partition('+')[0].replace('.', '')}@{domain}"


def _count_mail(address: str, requester: str | None = None) -> bool:
    """Count a mail. Returns False, and counts nothing, when it is over a limit.

    requester: a hash of the address range that asks, for a confirmed address; None for any other.
    """
    if not is_unquoted(address):
        logger.warning("A mail was not sent: its recipient's address is quoted, or is none")
        return False
    count, seconds = settings.RATE_LIMITS["mails"]
    each = settings.RATE_LIMITS["mails_per_address"]
    who, (of_address, of_seconds) = recipient(address), each
    asked = [token_bucket.Withdrawal("mails of", "the site", count, seconds)]
    # Separate counts: strangers must not use up what an account's owner needs.
    if requester is None:
        most = max(1, int(count * FOR_STRANGERS)) if count else 0
        asked += [
            token_bucket.Withdrawal("questions to", who, *each),
            token_bucket.Withdrawal("mails of", "the site to strangers", most, seconds),
        ]
    else:
        asked += [
            token_bucket.Withdrawal("mails to", f"{who} from {requester}", *each),
            token_bucket.Withdrawal("mails to", who, of_address * RANGES, of_seconds),
        ]
    if not token_bucket.try_withdraw(asked):
        return True
    logger.warning(
        "A mail was not sent: its recipient got as many as LIMIT_MAILS_PER_ADDRESS allows, "
        "or the site sent as many as LIMIT_MAILS allows"
    )
    return False


def _send(address: str, kind: str, context: dict[str, Any], language: str) -> None:
    with translation.override(language):
        subject = " ".join(render_to_string(f"accounts/{kind}_subject.txt").split())
        body = render_to_string(f"accounts/{kind}_mail.txt", context)
    EmailMessage(subject, body.strip() + "\n", to=[address]).send()


# Confirming an address


def revoke_links(user: User) -> None:
    """Revoke all links that would confirm an address of this account."""
    with transaction.atomic():
        AddressChanges.objects.get_or_create(user=user)
        AddressChanges.objects.filter(user=user).update(number=F("number") + 1)


def _account_state(user: User, address: str) -> str:
    """A hash that a link is bound to: it changes with the account's address and password."""
    changes = AddressChanges.objects.filter(user=user).first()
    number = changes.number if changes else 0
    text = f"{user.pk} {address} {user.email} {user.password} {number}"
    return salted_hmac(SALT, text, algorithm="sha256").hexdigest()[:32]


def confirmation_token(user: User, address: str) -> str:
    """A token that confirms an account's address, once and for a while."""
    signed = signing.dumps([user.pk, address, _account_state(user, address)], salt=SALT)
    return signed.replace(":", ".")  # so that mail programs take all of it for the link


def read_token(token: str) -> tuple[User, str] | None:
    """The account and address of a confirmation token; None once it is used or too old."""
    try:
        found = signing.loads(
            token.replace(".", ":"), salt=SALT, max_age=settings.EMAIL_CONFIRMATION_TIMEOUT
        )
    except signing.BadSignature:
        return None
    user_id, address, state = found
    user = User.objects.filter(pk=user_id, is_active=True).first()
    if user is None or not constant_time_compare(state, _account_state(user, address)):
        return None
    return user, address


def confirm(token: str) -> bool:
    """Set an account's address by a token. Returns False when the token is used or too old."""
    with transaction.atomic():
        found = read_token(token)
        if found is None:
            return False
        user, address = found
        revoke_links(user)
        same = User.objects.filter(pk=user.pk, email=user.email, password=user.password)
        return same.update(email=address) == 1


def remove_address(user: User) -> None:
    """Remove an account's address, and revoke the links that would set one."""
    with transaction.atomic():
        revoke_links(user)
        User.objects.filter(pk=user.pk).update(email="")


def send_confirmation(user_id: int, address: str, language: str, site: str) -> None:
    """Mail a link that confirms an account's address to that address.

    site: how links begin, here and below: SITE_URL, never a request's Host header.
    """
    user = User.objects.filter(pk=user_id, is_active=True).first()
    if user is None or not _count_mail(address):
        return
    revoke_links(user)
    path = reverse("accounts:confirm", args=[confirmation_token(user, address)])
    hours = settings.EMAIL_CONFIRMATION_TIMEOUT // 3600
    _send(address, "confirm", {"site": site, "link": site + path, "hours": hours}, language)


# A forgotten password


def send_reset_links(address: str, language: str, site: str, requester: str) -> None:
    """Mail one link for each account with this confirmed address, all in one mail.

    requester: a hash of the address range that asks.
    """
    users = sorted(PasswordResetForm().get_users(address), key=lambda user: user.pk)
    minutes = settings.PASSWORD_RESET_TIMEOUT // 60
    # To the address that was confirmed, not the one in the form: letters may only look alike.
    for confirmed in dict.fromkeys(user.email for user in users):
        if _count_mail(confirmed, requester):
            own = [user for user in users if user.email == confirmed]
            links = [(user.get_username(), site + _reset_path(user)) for user in own]
            context = {"site": site, "links": links, "minutes": minutes}
            _send(confirmed, "reset", context, language)


def _reset_path(user: User) -> str:
    uid = urlsafe_base64_encode(force_bytes(user.pk))
    token = default_token_generator.make_token(user)
    return reverse("accounts:reset_confirm", args=[uid, token])
