"""Webhooks: whoever sent a song by the API can have an address of theirs called when it ends.

Here is what is sent and by which secret it is signed; `separations.courier` sends it. A secret is
not kept but worked out from the site's secret key and its owner: a stolen database signs nothing.
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

from separations import sentences
from separations.addresses import BadAddress, looks_private, parse
from separations.faults import Fault
from separations.models import Delivery, Job, Owner, WebhookKey

# The states as the API names them.
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


# What is sent


def announce(jobs: Iterable[uuid.UUID]) -> None:
    """Have those of `jobs` that ended, and were sent with an address to call, announced to it."""
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


def listen(listener: Callable[[], None]) -> None:
    """Have `listener` called when this process has announced something."""
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
    return json.dumps({"type": f"separation.{status}", "timestamp": ended, "data": data})


def _error(job: Job) -> dict[str, str] | None:
    if not job.error_code:
        return None
    with translation.override("en"):  # for programs, whoever caused it
        detail = sentences.fault_sentence(job.error_code, job.error_params)
    return {"code": job.error_code, "detail": detail}


# Where to


def check_url(url: str) -> None:
    """Look at an address as it is written, when it is given; its host is looked up at each call.

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


# Signed by


def secret_of(owner: Owner) -> str:
    """The secret that calls about the owner's songs are signed with, as receivers are given it."""
    return secrets_of(owner)[0]


def secrets_of(owner: Owner) -> list[str]:
    """The owner's secret, and what it was under earlier keys of the site that are still taken."""
    who = f"visitor:{owner.visitor}"
    if owner.user_id:
        key = WebhookKey.objects.filter(pk=owner.user_id).first()
        who = f"user:{owner.user_id}:{key.version if key else 1}"
    return [_secret(who, key) for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)]


def _secret(who: str, key: str | bytes) -> str:
    mac = salted_hmac("separations.webhooks", who, secret=key, algorithm="sha256").digest()
    return f"{SECRET_PREFIX}{base64.b64encode(mac).decode()}"


def headers_of(delivery: Delivery, now: int) -> dict[str, str]:
    """What goes with a delivery's body, at a time in seconds: https://www.standardwebhooks.com."""
    signed = f"{delivery.pk}.{now}.{delivery.body}".encode()
    signatures = [
        f"v1,{base64.b64encode(hmac.digest(_bytes(secret), signed, 'sha256')).decode()}"
        for secret in _secrets_for(delivery.job)
    ]
    return {
        "Content-Type": "application/json",
        "User-Agent": "Stemsite",
        "webhook-id": str(delivery.pk),  # the same in every attempt
        "webhook-timestamp": str(now),
        "webhook-signature": " ".join(signatures),
    }


def _secrets_for(job: Job) -> list[str]:
    """Those of its owner; and of who sent it before their log-in, and has no other."""
    found = secrets_of(job.owner)
    if job.user_id and job.visitor:
        found += secrets_of(Owner(job.visitor))
    return found


def _bytes(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(SECRET_PREFIX))


def renew_secret(user: User) -> None:
    """Give an account another secret; its earlier one signs nothing any more."""
    WebhookKey.objects.get_or_create(pk=user.pk)
    WebhookKey.objects.filter(pk=user.pk).update(version=F("version") + 1)


# Once more


def resend(deliveries: QuerySet[Delivery]) -> int:
    """Have those that were given up sent again, from the first attempt on; returns how many."""
    given_up = deliveries.filter(state=Delivery.State.GIVEN_UP)
    return given_up.update(
        state=Delivery.State.WAITING, attempts=0, next_at=timezone.now(), ended_at=None
    )
