"""Submitting a song: store its file and queue its job, both or neither; idempotent by key."""

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils.crypto import salted_hmac

from separations.engine.options import Options
from separations.errors.fault import Fault
from separations.jobs import lifecycle
from separations.logs.formatter import Personal
from separations.models import IdempotencyKey, Job, Owner, Upload, lifetimes
from separations.uploads import song_files

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class IdempotentRequest:
    """A request with the header Idempotency-Key: repeated, it makes no second job.

    key: a hash of the owner and the header. request: a hash of what the request asks for.
    """

    key: str
    request: str

    @classmethod
    def of(cls, owner: Owner, key: str, *asked: object) -> "IdempotentRequest":
        who = f"user {owner.user_id}" if owner.user_id else f"visitor {owner.visitor}"
        mac = salted_hmac("separations.intake", f"{who} {key}", algorithm="sha256").hexdigest()
        return cls(mac, hashlib.sha256(json.dumps(asked).encode()).hexdigest())

    def earlier(self) -> Job | None:
        """The job of the same request when it was sent before, if it was.

        Raises:
            Fault: idempotency_mismatch when another request was sent with this key.
        """
        kept = IdempotencyKey.objects.filter(pk=self.key).select_related("job__upload").first()
        if kept is None:
            return None
        if kept.request != self.request:
            raise Fault("idempotency_mismatch")
        return kept.job

    def is_known(self) -> bool:
        """Whether any request with this key is stored."""
        return IdempotencyKey.objects.filter(pk=self.key).exists()

    def store(self, job: Job) -> None:
        IdempotencyKey.objects.create(key=self.key, request=self.request, job=job)


def outdated_keys() -> QuerySet[IdempotencyKey]:
    """Keys of requests that clients no longer repeat."""
    return IdempotencyKey.objects.filter(created_at__lt=lifetimes.idempotency_keys_kept_since())


def submit(
    accept: Callable[[Owner], Upload],
    options: Options,
    owner: Owner,
    *,
    webhook_url: str = "",
    once: IdempotentRequest | None = None,
) -> Job:
    """Store a song with `accept` and queue its job. A failure leaves neither.

    Raises:
        Fault: those of `accept`, `lifecycle.submit` and `IdempotentRequest.earlier`; account_gone.
    """
    if once is not None and (earlier := once.earlier()):
        return earlier
    upload = accept(owner)
    try:
        with transaction.atomic():
            job = lifecycle.submit(upload, options, owner, webhook_url)
            if once is not None:
                once.store(job)
    except (IntegrityError, Fault):
        song_files.drop(upload)
        # The same request came at the same time and was first: it is counted already.
        if once is not None and (earlier := once.earlier()):
            return earlier
        if owner.user_id and not User.objects.filter(pk=owner.user_id).exists():
            raise Fault("account_gone") from None
        raise
    except BaseException:
        song_files.drop(upload)
        raise
    logger.info("Job %s: asked for, of %s", job.pk, Personal(upload.file_name))
    return job
