"""The front page: the upload form, the demo song and the visitor's songs."""

from collections.abc import Callable
from functools import partial
from typing import cast

from django.conf import settings
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import (
    require_http_methods,
    require_POST,
)
from django.views.decorators.vary import vary_on_headers

from separations.access import permissions
from separations.audio.decoding.allowed_codecs import kinds
from separations.errors import problem_details, user_messages
from separations.errors.fault import Fault
from separations.fair_use import rate_limits
from separations.fair_use.rate_limits import limited
from separations.models import Job, Owner, Upload
from separations.monitoring import fault_counts
from separations.uploads import song_files, submission
from separations.uploads.handlers import refused_files, too_large
from separations.web import number_format
from separations.web.forms import SeparationForm
from separations.web.presenters.song import present_song, standstill
from separations.web.site_request import SiteRequest
from separations.worker import tasks

DEMO_SONG = settings.BASE_DIR / "static" / "demo" / "feelings.m4a"
MAX_SONGS_SHOWN = 50


@limited("upload")
@never_cache
@vary_on_headers("HX-Request")
@require_http_methods(["GET", "HEAD", "POST"])
def home(request: SiteRequest) -> HttpResponse:
    """The upload form above the visitor's songs; POST takes one song or several."""
    if request.method == "POST":
        return _accept_songs(request)
    return _render_home(request, SeparationForm(request.GET), [], 200)


def _render_home(
    request: HttpRequest, form: SeparationForm, errors: list[tuple[str, str]], status: int
) -> HttpResponse:
    own = permissions.visible_jobs(request).prefetch_related("stems")[:MAX_SONGS_SHOWN]
    songs = [present_song(job) for job in own]
    context = {
        "form": form,
        "errors": errors,
        "songs": songs,
        "standstill": standstill(),
        "any_active": any(song.active for song in songs),
        "max_upload_mb": settings.MAX_UPLOAD_MB,
        "too_large": user_messages.sentence(too_large()),
        "largest": number_format.size(settings.MAX_UPLOAD_MB * 1e6),
        "longest": number_format.longest(settings.MAX_DURATION_SECONDS),
        "extensions": ",".join(settings.ALLOWED_EXTENSIONS),
        "kinds": ", ".join(kinds(settings.ALLOWED_EXTENSIONS)),
    }
    response = render(request, "separations/home.html", context, status=status)
    permissions.set_visitor_cookie(request, response)
    return response


def _accept_songs(request: SiteRequest) -> HttpResponse:
    """Create a job for each file, and list the files that were refused, with reasons."""
    form = SeparationForm(request.POST)
    made: list[Job] = []
    # FILE_UPLOAD_HANDLERS creates no other type.
    files = cast(list[TemporaryUploadedFile], request.FILES.getlist("file"))
    turned_away = refused_files(request)
    if not files and not turned_away:
        turned_away.append(("", Fault("no_file")))
    for file in files:
        try:
            made.append(_submit(request, form, partial(song_files.accept, file)))
        except Fault as fault:
            turned_away.append((file.name or "", fault))
    fault_counts.count_refusals(fault for _name, fault in turned_away)
    errors = [(name, user_messages.sentence(fault)) for name, fault in turned_away]
    status = user_messages.status(turned_away[0][1]) if turned_away else 200
    if request.htmx:
        context = {"songs": [present_song(job) for job in made], "errors": errors}
        response = render(request, "separations/_uploaded.html", context, status=status)
    elif errors:
        response = _render_home(request, form, errors, status)
    else:
        to = ("separations:job", made[0].pk) if len(made) == 1 else ("separations:home",)
        return redirect(*to)
    if turned_away:
        problem_details.set_retry_after(response, turned_away[0][1])
    return response


def _submit(request: HttpRequest, form: SeparationForm, accept: Callable[[Owner], Upload]) -> Job:
    """Submit a song with the form's options, and wake the consumer."""
    job = submission.submit(accept, form.options(), permissions.ensure_owner(request))
    tasks.wake()
    return job


@limited("action")
@require_POST
def demo(request: HttpRequest) -> HttpResponse:
    """Separate the song that comes with the site. It counts as an upload."""
    form = SeparationForm()
    try:
        rate_limits.count_request("upload", request)
        with fault_counts.counting_refusals():
            accept = partial(song_files.accept_path, DEMO_SONG, DEMO_SONG.name)
            job = _submit(request, form, accept)
    except Fault as fault:
        return _render_home(
            request, form, [("", user_messages.sentence(fault))], user_messages.status(fault)
        )
    return redirect("separations:job", job.pk)
