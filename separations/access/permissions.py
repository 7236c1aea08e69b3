"""Authorization for songs: who may view, change or share one. Everyone else gets 404.

Every view of a song calls `song_or_404`, or one of its shorthands below it. A song that the
requester may not see and a song that does not exist get the same answer, by the same single query.
What a share link allows stands in `access.share_links`.
"""

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from separations.access import share_links
from separations.errors import user_messages
from separations.fair_use import quotas, rate_limits
from separations.fair_use.client_address import client
from separations.jobs import lifecycle, ownership
from separations.logs.secret_tokens import PATTERN, ShareToken
from separations.models import Job, Owner, Stem

if TYPE_CHECKING:
    from separations.models import JobQuerySet

VISITOR = "visitor"
SAFE = ("GET", "HEAD")
SongKey = uuid.UUID | ShareToken  # which of the two stands in a song's address


# Addresses


class SongConverter:
    """songs/ID, a song's address for its owner, and s/TOKEN, its address by a share link."""

    regex = rf"songs/[0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}|s/{PATTERN}"

    def to_python(self, value: str) -> SongKey:
        kind, _, key = value.partition("/")
        return ShareToken(key) if kind == "s" else uuid.UUID(key)

    def to_url(self, key: SongKey) -> str:
        return f"s/{key}" if isinstance(key, ShareToken) else f"songs/{key}"


# Who sends a request


def owner_of(request: HttpRequest) -> Owner:
    """The account, visitor or token holder that sends a request.

    A visitor without a session has no id yet and owns nothing.
    """
    by_token: Owner | None = getattr(request, "token_owner", None)  # see `access.token_auth`
    if by_token is not None:
        return by_token
    user_id = request.user.pk if request.user.is_authenticated else None
    visitor = request.session.get(VISITOR, "")
    return Owner(visitor, user_id, client(request))


def ensure_owner(request: HttpRequest) -> Owner:
    """`owner_of`, with a visitor id for a session that has none: call it before creating a song."""
    if not request.session.get(VISITOR):
        request.session[VISITOR] = _visitor_in_cookie(request) or uuid.uuid4().hex
    return owner_of(request)


def set_visitor_cookie(request: HttpRequest, response: HttpResponse) -> None:
    """Give a new visitor's browser its visitor id in a signed cookie, before it sends a song.

    Several tabs that send their first songs at once each start a session, of which the browser
    keeps one. The cookie makes all of them the same visitor. (A session at this point would write
    a row for every page view.)
    """
    if not request.session.get(VISITOR) and not _visitor_in_cookie(request):
        response.set_signed_cookie(
            settings.VISITOR_COOKIE_NAME,
            uuid.uuid4().hex,
            max_age=settings.SESSION_COOKIE_AGE,
            secure=settings.SESSION_COOKIE_SECURE,
            httponly=True,
            samesite="Lax",
        )


def forget_visitor(request: HttpRequest, response: HttpResponseBase) -> None:
    """Drop the session and the visitor cookie: the browser's next user is a new visitor."""
    request.session.flush()
    response.delete_cookie(settings.VISITOR_COOKIE_NAME, samesite="Lax")


def _visitor_in_cookie(request: HttpRequest) -> str:
    """The visitor id in the signed cookie, or ""."""
    age = settings.SESSION_COOKIE_AGE
    return request.get_signed_cookie(settings.VISITOR_COOKIE_NAME, default="", max_age=age) or ""


def claim_songs(request: HttpRequest, user: Any, **_signal: object) -> None:
    """Move the session's songs to the account that logs in: a receiver of Django's signals.

    It runs again at log-out, for songs that were sent during the log-in.
    """
    visitor = request.session.get(VISITOR, "")
    if user and user.pk and (count := ownership.claim(visitor, user.pk)):
        messages.success(request, user_messages.claimed(count), fail_silently=True)


# What requesters may do


@dataclass(frozen=True)
class Grant:
    """A song that the requester may view, and what else they may do with it.

    key: the requester's key to it, from which all addresses on its pages are made.
    may_change: cancel, retry, delete.
    may_share: create, see and end links; separate the song again as one of their own.

    A share link has neither right: see `share_links`.
    """

    job: Job
    key: SongKey
    may_change: bool = False
    may_share: bool = False

    @property
    def actor(self) -> str:
        """The role in which they change it, for the log of transitions."""
        return lifecycle.OWNER if self.may_share else lifecycle.STAFF


def visible_jobs(request: HttpRequest) -> "JobQuerySet":
    return Job.objects.visible_to(owner_of(request)).select_related("upload")


def song_or_404(request: HttpRequest, key: SongKey, fields: tuple[str, ...] = ()) -> Grant:
    """The song, if it belongs to the requester, was shared with them, or they are staff.

    Staff need the admin's permission to view jobs, and to change one the permission to delete jobs.

    Args:
        fields: loads these fields of the job alone, and not its upload.
    """
    if isinstance(key, ShareToken):
        link = share_links.find(key) if share_links.allows(request) else None
        if link is None:
            raise Http404
        return Grant(link.job, key)
    changes = request.method not in SAFE
    owner = owner_of(request)
    sees_all = _staff_may(request, "delete_job" if changes else "view_job")
    songs = Job.objects.all() if sees_all else Job.objects.visible_to(owner)
    songs = songs.only(*fields, "user", "visitor") if fields else songs.select_related("upload")
    try:
        job = songs.get(pk=key)
    except Job.DoesNotExist:
        raise Http404 from None
    own = job.belongs_to(owner)
    return Grant(job, key, own or _staff_may(request, "delete_job"), own)


def job_or_404(request: HttpRequest, job_id: uuid.UUID) -> Job:
    """The job, for pages that are never shared."""
    return song_or_404(request, job_id).job


def stem_or_404(job: Job, name: str) -> Stem:
    """One of the job's stems, with its job and upload loaded."""
    stem = job.stems.select_related("job__upload").filter(name=name).first()
    if stem is None:
        raise Http404
    return stem


def own_job_or_404(request: HttpRequest, job_id: uuid.UUID) -> Job:
    """The job, if it is the requester's own: staff do not share other people's songs."""
    grant = song_or_404(request, job_id)
    if not grant.may_share:
        raise Http404
    return grant.job


def charge_retry(request: HttpRequest, grant: Grant) -> Owner | None:
    """Count a retry, and return the owner whose quotas it uses: None for the site's staff.

    A retry counts as a new song: it starts over, may need a new engine process where cancelling
    ended the old one, and its webhook is sent once more.

    Raises:
        Fault: too_many_requests, site_limit.
    """
    if not grant.may_share:
        return None
    if grant.job.state in (Job.State.FAILED, Job.State.CANCELLED):
        rate_limits.count_request("upload", request)
        quotas.count_for_site("upload")
    return owner_of(request)


def _staff_may(request: HttpRequest, permission: str) -> bool:
    """Whether staff rights apply. Never by an API token: it reaches its owner's own songs alone."""
    user = request.user
    by_token = hasattr(request, "token_owner")
    return not by_token and user.is_staff and user.has_perm(f"separations.{permission}")


# For templates


def accounts(request: HttpRequest) -> dict[str, object]:
    """A context processor: whether this site has accounts at all."""
    return {"accounts": settings.ACCOUNTS != "off"}
