"""Whose is it: the one place that knows, and answers 404 to strangers."""

import uuid
from typing import TYPE_CHECKING

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse

from separations.models import Job, Owner

if TYPE_CHECKING:
    from separations.models import JobQuerySet

VISITOR = "visitor"


def owner_of(request: HttpRequest) -> Owner:
    """Who is asking. A visitor without a session is nobody yet and owns nothing."""
    user_id = request.user.pk if request.user.is_authenticated else None
    return Owner(visitor=request.session.get(VISITOR, ""), user_id=user_id)


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


def _introduced(request: HttpRequest) -> str:
    """Who the visitor's browser was told to be, if it was."""
    age = settings.SESSION_COOKIE_AGE
    return request.get_signed_cookie(settings.VISITOR_COOKIE_NAME, default="", max_age=age) or ""


def visible_jobs(request: HttpRequest) -> "JobQuerySet":
    return Job.objects.visible_to(owner_of(request)).select_related("upload")


def job_or_404(request: HttpRequest, job_id: uuid.UUID) -> Job:
    """The job, if it belongs to whoever asks.

    Staff with the admin's permission to view jobs see all of them; to change one they need the
    permission to delete jobs.
    """
    permission = "view_job" if request.method in ("GET", "HEAD") else "delete_job"
    if request.user.is_staff and request.user.has_perm(f"separations.{permission}"):
        jobs = Job.objects.select_related("upload")
    else:
        jobs = visible_jobs(request)
    try:
        return jobs.get(pk=job_id)
    except Job.DoesNotExist:
        raise Http404 from None
