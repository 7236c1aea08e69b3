"""A song's page, its partials that poll, and its buttons."""

import uuid
from typing import Any

from django.contrib import messages
from django.db.models import prefetch_related_objects
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import (
    require_GET,
    require_POST,
    require_safe,
)

from separations.access import permissions
from separations.access.permissions import Grant, SongKey
from separations.errors import user_messages
from separations.errors.fault import Fault
from separations.fair_use import rate_limits
from separations.fair_use.rate_limits import limited
from separations.jobs import lifecycle
from separations.queue import queue_position
from separations.web.forms import SeparationForm
from separations.web.presenters.downloads import download_choices, rate_choices
from separations.web.presenters.mixer import present_mixer
from separations.web.presenters.sharing import present_sharing
from separations.web.presenters.song import present_song, standstill, version
from separations.worker import tasks

STOP_POLLING = 286  # htmx's own status: swap this in and poll no more


@never_cache
@require_safe
def job_page(request: HttpRequest, song: SongKey) -> HttpResponse:
    return _render_job_page(request, permissions.song_or_404(request, song))


def _render_job_page(
    request: HttpRequest, grant: Grant, error: str = "", status: int = 200
) -> HttpResponse:
    context = {**_song_context(request, grant), "error": error}
    return render(request, "separations/job.html", context, status=status)


def refused_page(request: HttpRequest, song: SongKey, fault: Fault) -> HttpResponse:
    """The song's page with the reason why a request was refused."""
    grant = permissions.song_or_404(request, song)
    return _render_job_page(
        request, grant, user_messages.sentence(fault), user_messages.status(fault)
    )


def _song_context(request: HttpRequest, grant: Grant) -> dict[str, Any]:
    job = grant.job
    if not job.is_active:
        prefetch_related_objects([job], "stems")  # one query for all code below
    chosen = {"model": job.model, "stems": job.stem_choice}
    # Before the mixer: what finishes in between shows at the next poll.
    song = present_song(job, grant)
    context: dict[str, Any] = {
        "song": song,
        "mixer": present_mixer(song),
        "formats": download_choices(job.upload.sample_rate),
        "rates": rate_choices(job.upload.sample_rate),
    }
    # Only an ended song can be separated again; polls before that need not read the models.
    if not job.is_active and grant.may_change:
        context["form"] = SeparationForm(chosen)
    if song.stems and grant.may_share:
        context["sharing"] = present_sharing(job, request.build_absolute_uri)
    return context


@never_cache
@require_GET
def job_status(request: HttpRequest, song: SongKey) -> HttpResponse:
    """The changing part of the song's page, which polls itself while the job is active."""
    if _is_unchanged(request, song):
        return HttpResponse(status=204)
    grant = permissions.song_or_404(request, song)
    return _poll_response(request, "separations/_status_poll.html", _song_context(request, grant))


@never_cache
@require_GET
def job_card(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    """A song in the home page's list, which polls likewise, and the notice of a paused queue."""
    if _is_unchanged(request, job_id):
        return HttpResponse(status=204)
    job = permissions.job_or_404(request, job_id)
    context = {"song": present_song(job), "standstill": standstill()}
    return _poll_response(request, "separations/_card_poll.html", context)


def _is_unchanged(request: HttpRequest, key: SongKey) -> bool:
    """Whether the page shows the current state. Runs each second, so it loads few fields."""
    seen = request.GET.get("seen")
    if not seen:
        return False
    job = permissions.song_or_404(request, key, queue_position.POLLED_FIELDS).job
    return job.is_active and seen == version(job, queue_position.standing_of(job))


def _poll_response(request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
    status = 200 if context["song"].active else STOP_POLLING
    return render(request, template, context, status=status)


@limited("action")
@require_POST
def cancel(request: HttpRequest, job_id: uuid.UUID) -> HttpResponseRedirect:
    grant = permissions.song_or_404(request, job_id)
    lifecycle.cancel(grant.job, grant.actor)
    return HttpResponseRedirect(reverse("separations:job", args=[job_id]))


@limited("action")
@require_POST
def retry(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    grant = permissions.song_or_404(request, job_id)
    try:
        lifecycle.retry(grant.job, permissions.charge_retry(request, grant))
    except Fault as fault:
        return refused_page(request, job_id, fault)
    tasks.wake()
    return redirect("separations:job", job_id)


@limited("action")
@require_POST
def again(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    """Separate the song again with other options, as a new job of the requester."""
    job = permissions.own_job_or_404(request, job_id)
    form = SeparationForm(request.POST)
    try:
        rate_limits.count_request("upload", request)
        new = lifecycle.again(job, form.options(), permissions.ensure_owner(request))
    except Fault as fault:
        return refused_page(request, job_id, fault)
    tasks.wake()
    return redirect("separations:job", new.pk)


@limited("action")
@require_POST
def delete(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    job = permissions.job_or_404(request, job_id)
    title = job.upload.title
    lifecycle.remove(job)
    messages.success(request, user_messages.deleted(title))
    return redirect("separations:home")
