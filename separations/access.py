"""Whose is it: the one place that knows, and answers 404 to strangers.

Every view of a song asks `song_or_404` or `job_or_404`, which is the former for the owner's own
addresses. Whoever may not see a song and whoever asks for one that is not there get the same
answer, from the same single query.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import resolve_url
from django.utils.deprecation import MiddlewareMixin
from django_htmx.http import HttpResponseClientRedirect

from separations import accounts as account_services
from separations import jobs, rate_limits, sentences, sharing
from separations.clients import client
from separations.models import Job, Owner
from separations.share_tokens import PATTERN, ShareToken

if TYPE_CHECKING:
    from separations.models import JobQuerySet

VISITOR = "visitor"
SAFE = ("GET", "HEAD")
SongKey = uuid.UUID | ShareToken  # what a song is reached by


# Addresses


class SongConverter:
    """songs/ID, the address of a song for its owner, and s/TOKEN, the one that is shared."""

    regex = rf"songs/[0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}|s/{PATTERN}"

    def to_python(self, value: str) -> SongKey:
        kind, _, key = value.partition("/")
        return ShareToken(key) if kind == "s" else uuid.UUID(key)

    def to_url(self, key: SongKey) -> str:
        return f"s/{key}" if isinstance(key, ShareToken) else f"songs/{key}"


# Who is asking


def owner_of(request: HttpRequest) -> Owner:
    """Who is asking. A visitor without a session is nobody yet and owns nothing."""
    asker: Owner | None = getattr(request, "asker", None)  # by a token; see `separations.askers`
    if asker is not None:
        return asker
    user_id = request.user.pk if request.user.is_authenticated else None
    visitor = request.session.get(VISITOR, "")
    return Owner(visitor, user_id, client(request))


def new_owner(request: HttpRequest) -> Owner:
    """Who is asking, given an identity where there was none (before something is made)."""
    if not request.session.get(VISITOR):
        request.session[VISITOR] = _introduced(request) or uuid.uuid4().hex
    return owner_of(request)


def introduce(request: HttpRequest, response: HttpResponse) -> None:
    """Tell a new visitor's browser who it is, before it sends anything.

    Several tabs that send their first songs at once each get a session of their own, of which the
    browser keeps one. All of them are the same visitor by this. (A session now, for everybody who
    only looks, would be a row in the database each time.)
    """
    if not request.session.get(VISITOR) and not _introduced(request):
        response.set_signed_cookie(
            settings.VISITOR_COOKIE_NAME,
            uuid.uuid4().hex,
            max_age=settings.SESSION_COOKIE_AGE,
            secure=settings.SESSION_COOKIE_SECURE,
            httponly=True,
            samesite="Lax",
        )


def forget(request: HttpRequest, response: HttpResponseBase) -> None:
    """Let the next who uses this browser be somebody else."""
    request.session.flush()
    response.delete_cookie(settings.VISITOR_COOKIE_NAME, samesite="Lax")


def _introduced(request: HttpRequest) -> str:
    """Who the visitor's browser was told to be, if it was."""
    age = settings.SESSION_COOKIE_AGE
    return request.get_signed_cookie(settings.VISITOR_COOKIE_NAME, default="", max_age=age) or ""


def claim_songs(request: HttpRequest, user: Any, **_signal: object) -> None:
    """Make the session's songs those of the account that it logs in to.

    Once more at the end of the session, for what was sent in the moment of the log-in.
    """
    visitor = request.session.get(VISITOR, "")
    if user and user.pk and (count := account_services.claim(visitor, user.pk)):
        messages.success(request, sentences.claimed(count), fail_silently=True)


# What they may


@dataclass(frozen=True)
class Grant:
    """A song that is shown to whoever asks, and what else they may do.

    key: by which they reach it; all addresses in its pages are made of it.
    may_change: cancel, retry, separate again, delete.
    may_share: make links, see them and end them.
    """

    job: Job
    key: SongKey
    may_change: bool = False
    may_share: bool = False

    @property
    def by(self) -> str:
        """As whom they change it, for its timeline."""
        return jobs.OWNER if self.may_share else jobs.STAFF


def visible_jobs(request: HttpRequest) -> "JobQuerySet":
    return Job.objects.visible_to(owner_of(request)).select_related("upload")


def song_or_404(request: HttpRequest, key: SongKey, fields: tuple[str, ...] = ()) -> Grant:
    """The song, if it belongs to whoever asks or was shared with them.

    Staff with the admin's permission to view jobs see all of them; to change one they need the
    permission to delete jobs. A link lets nobody change anything.

    Args:
        fields: of the job, where its asker looks at these alone; its upload is left out, too.
    """
    if isinstance(key, ShareToken):
        link = sharing.opened_by(key) if request.method in SAFE else None
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
    """The job, for what is never shared."""
    return song_or_404(request, job_id).job


def own_job_or_404(request: HttpRequest, job_id: uuid.UUID) -> Job:
    """The job, if it is the asker's own: staff do not give away other people's songs."""
    grant = song_or_404(request, job_id)
    if not grant.may_share:
        raise Http404
    return grant.job


def counted_owner(request: HttpRequest, grant: Grant) -> Owner | None:
    """On whose account it is to run a song again: nobody's where the site's staff ask.

    Where a webhook is called once more in the end, it is counted as a song that is sent: there are
    no more calls than songs.

    Raises:
        Fault: too_many_requests.
    """
    if not grant.may_share:
        return None
    if grant.job.webhook_url and grant.job.state in (Job.State.FAILED, Job.State.CANCELLED):
        rate_limits.take("upload", request)
    return owner_of(request)


def _staff_may(request: HttpRequest, permission: str) -> bool:
    """A token acts for its owner's own songs alone, whoever they are."""
    user = request.user
    by_token = hasattr(request, "asker")
    return not by_token and user.is_staff and user.has_perm(f"separations.{permission}")


# The site as a whole

OPEN_TO_ALL = ("separations:about", "set_language")
OPEN_APPS = ("accounts", "admin", "control", "api")  # they ask for log-in where it is needed
FOR_PLAYERS = ("separations:chunk", "separations:peaks", "separations:stem")


class Guard(MiddlewareMixin):
    """What `ACCOUNTS` says, and the headers of addresses that are secrets.

    Where accounts are required, all is closed that is not named as open here.
    """

    def process_view(
        self,
        request: HttpRequest,
        view_func: Callable[..., Any],
        view_args: tuple[Any, ...],
        view_kwargs: dict[str, Any],
    ) -> HttpResponseBase | None:
        match = request.resolver_match
        if match is None:
            return None
        if settings.ACCOUNTS == "off" and match.app_name == "accounts":
            raise Http404
        shared = isinstance(view_kwargs.get("song"), ShareToken)
        is_open = shared or match.view_name in OPEN_TO_ALL or match.app_name in OPEN_APPS
        if settings.ACCOUNTS != "required" or is_open or request.user.is_authenticated:
            return None
        if match.view_name in FOR_PLAYERS:
            raise Http404  # a player would take the log-in page for sound
        return self._to_the_log_in(request)

    def _to_the_log_in(self, request: HttpRequest) -> HttpResponseBase:
        home = resolve_url("separations:home")
        log_in = resolve_url(settings.LOGIN_URL)
        htmx = getattr(request, "htmx", None)
        if htmx:
            back = redirect_to_login(htmx.current_url_abs_path or home, log_in)
            return HttpResponseClientRedirect(back.url)
        return redirect_to_login(
            request.get_full_path() if request.method in SAFE else home, log_in
        )

    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        match = request.resolver_match
        names = ("song", "job_id", "task_id")
        key = match and next(filter(None, map(match.kwargs.get, names)), None)
        if key:
            response.headers["X-Robots-Tag"] = "noindex"
        if isinstance(key, ShareToken):
            response.headers["Referrer-Policy"] = "no-referrer"
        return response


def accounts(request: HttpRequest) -> dict[str, object]:
    """For templates: whether there are accounts to speak of."""
    return {"accounts": settings.ACCOUNTS != "off"}
