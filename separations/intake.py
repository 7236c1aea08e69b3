"""Taking a song in and queueing what is wanted of it, as one act: both are there, or neither."""

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.crypto import salted_hmac

from separations import jobs, uploads
from separations.engine.options import Options
from separations.faults import Fault
from separations.models import IdempotencyKey, Job, Owner, Upload
from stemsite.logs import Personal

logger = logging.getLogger(__name__)
KEPT = timedelta(days=1)


@dataclass(frozen=True)
class Once:
    """A request that may come again and is to be done once. (The header Idempotency-Key.)

    key: a hash of who asks and the key they chose. request: a hash of what they ask for.
    """

    key: str
    request: str

    @classmethod
    def of(cls, owner: Owner, key: str, *asked: object) -> "Once":
        who = f"user {owner.user_id}" if owner.user_id else f"visitor {owner.visitor}"
        mac = salted_hmac("separations.intake", f"{who} {key}", algorithm="sha256").hexdigest()
        return cls(mac, hashlib.sha256(json.dumps(asked).encode()).hexdigest())

    def earlier(self) -> Job | None:
        """What came of the request before, if it came before.

        Raises:
            Fault: idempotency_mismatch, when another request came with this key.
        """
        kept = IdempotencyKey.objects.filter(pk=self.key).select_related("job__upload").first()
        if kept is None:
            return None
        if kept.request != self.request:
            raise Fault("idempotency_mismatch")
        return kept.job

    def is_known(self) -> bool:
        """Whether a request came with this key lately, whatever it asked for."""
        return IdempotencyKey.objects.filter(pk=self.key).exists()

    def keep(self, job: Job) -> None:
        IdempotencyKey.objects.create(key=self.key, request=self.request, job=job)


def forgettable() -> QuerySet[IdempotencyKey]:
    """Keys of requests that nobody will repeat any more."""
    return IdempotencyKey.objects.filter(created_at__lt=timezone.now() - KEPT)


def take_in(
    accept: Callable[[], Upload],
    options: Options,
    owner: Owner,
    *,
    webhook_url: str = "",
    once: Once | None = None,
) -> Job:
    """Have `accept` keep a song, and queue it; keep nothing when that fails.

    Raises:
        Fault: what `accept`, `jobs.submit` and `Once.earlier` raise.
    """
    if once is not None and (earlier := once.earlier()):
        return earlier
    upload = accept()
    try:
        with transaction.atomic():
            job = jobs.submit(upload, options, owner, webhook_url)
            if once is not None:
                once.keep(job)
    except (IntegrityError, Fault):
        uploads.drop(upload)
        # The same request came in at the same time, was first, and is counted already.
        if once is not None and (earlier := once.earlier()):
            return earlier
        raise
    except BaseException:
        uploads.drop(upload)
        raise
    logger.info("Job %s: asked for, of %s", job.pk, Personal(upload.file_name))
    return job
