"""Share links: read-only addresses of a song. What they allow, and how they begin and end.

A token is derived from the link's id and the site's secret key and not stored, so that its owner
can copy the address again and a stolen database opens nothing. The database stores its hash, by
which a link is found: links outlive a change of the key, and only their addresses cannot be shown.
"""

import base64
import uuid
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone
from django.utils.crypto import salted_hmac

from separations.errors.fault import Fault
from separations.logs.secret_tokens import ShareToken
from separations.models import Job, ShareLink, lifetimes

# What a link allows: to look, to play and to download, in every format. Its holder changes
# nothing and shares nothing (`permissions.Grant`). To change what links allow, change these.
METHODS = ("GET", "HEAD")
PAGES = ("separations:job", "separations:status", "separations:cover")
PLAYER = ("separations:chunk", "separations:peaks")
DOWNLOADS = (
    "separations:stem",
    "separations:mix",
    "separations:mix_level",
    "separations:archive",
)
ALLOWED = frozenset((*PAGES, *PLAYER, *DOWNLOADS))
CACHE_SECONDS = 600  # how long browsers keep what they played: after that an ended link is silent
HEADERS = {"Referrer-Policy": "no-referrer"}  # the address is a secret

# How long a link may last, by its name in the form.
LIFETIMES: lifetimes.Lifetimes = {
    "1": timedelta(days=1),
    "7": timedelta(days=7),
    "30": timedelta(days=30),
    "never": None,
}
MAX_LINKS = 20  # open at a time, of one song


def allows(request: HttpRequest) -> bool:
    """Whether a share link may open the view that a request asks for."""
    match = request.resolver_match
    return request.method in METHODS and match is not None and match.view_name in ALLOWED


def create(job: Job, lasting: str) -> ShareLink:
    """Create a link to a song, and delete those of it that have ended.

    Raises:
        Fault: bad_option when no lifetime has this name; too_many_links.
    """
    expires_at = lifetimes.end_of(lasting, LIFETIMES)
    with transaction.atomic():
        # Locked, so that two requests count one after the other.
        Job.objects.select_for_update().filter(pk=job.pk).first()
        job.share_links.exclude(pk__in=job.share_links.open().values("pk")).delete()
        if job.share_links.count() >= MAX_LINKS:
            raise Fault("too_many_links", most=MAX_LINKS)
        link = ShareLink(job=job, expires_at=expires_at)
        link.token_hash = _token(link, settings.SECRET_KEY).digest
        link.save(force_insert=True)
    return link


def revoke(job: Job, link_id: uuid.UUID) -> bool:
    """End a link of this song at once. Returns False where there is no such open link."""
    return job.share_links.open().filter(pk=link_id).update(revoked_at=timezone.now()) == 1


def find(token: ShareToken) -> ShareLink | None:
    """The link with this token, unless it has ended."""
    links = ShareLink.objects.open().select_related("job__upload")
    return links.filter(token_hash=token.digest).first()


def is_open(token: ShareToken) -> bool:
    """Whether a link with this token exists and has not ended."""
    return ShareLink.objects.open().filter(token_hash=token.digest).exists()


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
