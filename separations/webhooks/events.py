"""Webhook deliveries: their bodies, signatures and secrets. A program can have an address called
when its song ends.

`webhooks.dispatcher` sends them. A secret is derived from the site's secret key and its owner and
not stored: a stolen database signs nothing.
"""

import base64
import hmac
import json
import uuid
from collections.abc import Callable, Iterable

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone, translation
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext_lazy as _

from separations.errors import user_messages
from separations.errors.fault import Fault
from separations.models import Delivery, Job, Owner, WebhookKey
from separations.webhooks.address_rules import BadAddress, looks_private, parse

# The API's names of states.
STATUS = {
    Job.State.QUEUED: "queued",
    Job.State.RUNNING: "processing",
    Job.State.DONE: "completed",
    Job.State.FAILED: "failed",
    Job.State.CANCELLED: "cancelled",
}
REASONS = {
    "off": _("this site calls no webhooks."),
    "long": _("it is longer than 500 characters."),
    "characters": _("it holds characters that must be percent-encoded, or is empty."),
    "scheme": _("it must begin with https:// or http://."),
    "user": _("it must not hold a user name or a password."),
    "host": _("it names no host."),
    "port": _("its port must be 80, 443 or one from 1024 on."),
    "private": _("it is not on the public network."),
}
SECRET_PREFIX = "whsec_"  # noqa: S105 - the part that is no secret
_listeners: list[Callable[[], None]] = []


# Bodies


def create_deliveries(jobs: Iterable[uuid.UUID]) -> None:
    """Create deliveries for those of `jobs` that have a webhook address. All of them have ended."""
    if not settings.WEBHOOKS:
        return
    ended = Job.objects.filter(pk__in=jobs).exclude(webhook_url="").prefetch_related("stems")
    deliveries = [
        Delivery(job=job, url=job.webhook_url, host=_host(job.webhook_url), body=_body(job))
        for job in ended
    ]
    if deliveries:
        Delivery.objects.bulk_create(deliveries)
        transaction.on_commit(_call_listeners)


def _host(url: str) -> str:
    try:
        return parse(url).host
    except BadAddress:
        return ""


def add_listener(listener: Callable[[], None]) -> None:
    """Register a function to call when this process has committed new deliveries."""
    _listeners.append(listener)


def _call_listeners() -> None:
    for listener in _listeners:
        listener()


def _body(job: Job) -> str:
    status = STATUS[Job.State(job.state)]
    data = {
        "task_id": str(job.pk),
        "status": status,
        "error": _error(job),
        "cached": job.cached,
        "stems": [stem.name for stem in job.stems.all()],
    }
    ended = job.finished_at.isoformat() if job.finished_at else None
    payload = {"type": f"separation.{status}", "timestamp": ended, "data": data}
    return json.dumps(payload, allow_nan=False)


def _error(job: Job) -> dict[str, str] | None:
    if not job.error_code:
        return None
    with translation.override("en"):  # for programs, in whatever language the job was sent
        detail = user_messages.fault_sentence(job.error_code, job.error_params)
    return {"code": job.error_code, "detail": detail}


# Addresses


def check_url(url: str) -> None:
    """Check the text of a webhook address when it is given. Its host is resolved at each call.

    Raises:
        Fault: bad_webhook.
    """
    if not settings.WEBHOOKS:
        raise Fault("bad_webhook", reason=REASONS["off"])
    try:
        target = parse(url)
    except BadAddress as error:
        raise Fault("bad_webhook", reason=REASONS[error.code]) from None
    if looks_private(target.host) and not settings.WEBHOOK_PRIVATE_ADDRESSES:
        raise Fault("bad_webhook", reason=REASONS["private"])


# Signatures


def signing_secret(owner: Owner) -> str:
    """The secret that signs deliveries about an owner's songs, in the form receivers get."""
    return signing_secrets(owner)[0]


def signing_secrets(owner: Owner) -> list[str]:
    """The owner's secret, then those under the site's earlier keys that are still valid."""
    who = f"visitor:{owner.visitor}"
    if owner.user_id:
        key = WebhookKey.objects.filter(pk=owner.user_id).first()
        who = f"user:{owner.user_id}:{key.version if key else 1}"
    return [_secret(who, key) for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)]


def _secret(who: str, key: str | bytes) -> str:
    mac = salted_hmac("separations.webhooks", who, secret=key, algorithm="sha256").digest()
    return f"{SECRET_PREFIX}{base64.b64encode(mac).decode()}"


def signed_headers(delivery: Delivery, now: int) -> dict[str, str]:
    """A delivery's headers at a time in seconds: see https://www.standardwebhooks.com."""
    signed = f"{delivery.pk}.{now}.{delivery.body}".encode()
    signatures = [
        f"v1,{base64.b64encode(hmac.digest(_bytes(secret), signed, 'sha256')).decode()}"
        for secret in _secrets_of_job(delivery.job)
    ]
    return {
        "Content-Type": "application/json",
        "User-Agent": "Stemsite",
        "webhook-id": str(delivery.pk),  # the same in every attempt
        "webhook-timestamp": str(now),
        "webhook-signature": " ".join(signatures),
    }


def _secrets_of_job(job: Job) -> list[str]:
    """The secrets of its owner, and of the visitor they were before their log-in."""
    found = signing_secrets(job.owner)
    if job.user_id and job.visitor:
        found += signing_secrets(Owner(job.visitor))
    return found


def _bytes(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(SECRET_PREFIX))


def renew_secret(user: User) -> None:
    """Replace an account's secret; the old one signs nothing any more."""
    WebhookKey.objects.get_or_create(pk=user.pk)
    WebhookKey.objects.filter(pk=user.pk).update(version=F("version") + 1)


# Sending again


def resend(deliveries: QuerySet[Delivery]) -> int:
    """Send deliveries that were given up again, from the first attempt; returns how many."""
    given_up = deliveries.filter(state=Delivery.State.GIVEN_UP)
    return given_up.update(
        state=Delivery.State.WAITING, attempts=0, next_at=timezone.now(), ended_at=None
    )
