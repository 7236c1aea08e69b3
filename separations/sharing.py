"""Share links: read-only addresses of a song for whoever holds them, until they end.

A token is not kept but worked out from the link's id and the site's secret key, so that its owner
can copy the address again and a stolen database opens nothing. What is kept is its hash, by which
a link is found; so links outlive a change of the key, and only their addresses cannot be shown.
"""

import base64
import uuid
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.crypto import salted_hmac

from separations.faults import Fault
from separations.models import Job, ShareLink
from separations.share_tokens import ShareToken

# How long a link may last, by its name in the form.
LASTING: dict[str, timedelta | None] = {
    "1": timedelta(days=1),
    "7": timedelta(days=7),
    "30": timedelta(days=30),
    "never": None,
}
MOST_LINKS = 20  # a song, at a time


def share(job: Job, lasting: str) -> ShareLink:
    """Make a link to a song. Links of it that have ended are forgotten.

    Raises:
        Fault: bad_option when there is no such time to last; too_many_links.
    """
    if lasting not in LASTING:
        raise Fault("bad_option", option="lasts", allowed=", ".join(LASTING))
    lasts = LASTING[lasting]
    with transaction.atomic():
        Job.objects.select_for_update().filter(pk=job.pk).first()  # one at a time counts
        job.share_links.exclude(pk__in=job.share_links.open().values("pk")).delete()
        if job.share_links.count() >= MOST_LINKS:
            raise Fault("too_many_links", most=MOST_LINKS)
        link = ShareLink(job=job, expires_at=timezone.now() + lasts if lasts else None)
        link.token_hash = _token(link, settings.SECRET_KEY).digest
        link.save(force_insert=True)
    return link


def revoke(job: Job, link_id: uuid.UUID) -> bool:
    """End a link of this song at once. Says whether there was one to end."""
    return job.share_links.open().filter(pk=link_id).update(revoked_at=timezone.now()) == 1


def opened_by(token: ShareToken) -> ShareLink | None:
    """The link with this token, unless it has ended."""
    links = ShareLink.objects.open().select_related("job__upload")
    return links.filter(token_hash=token.digest).first()


def token_of(link: ShareLink) -> ShareToken | None:
    """A link's token; None when it was made under another secret key."""
    for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
        token = _token(link, key)
        if token.digest == link.token_hash:
            return token
    return None


def _token(link: ShareLink, key: str | bytes) -> ShareToken:
    mac = salted_hmac("separations.sharing", link.pk.hex, secret=key, algorithm="sha256").digest()
    return ShareToken(base64.urlsafe_b64encode(mac).rstrip(b"=").decode())
