"""Pages and partials: read the request, call a service, render."""

import sys
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import (
    DisallowedHost,
    RequestDataTooBig,
    TooManyFieldsSent,
    TooManyFilesSent,
)
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.db.models import prefetch_related_objects
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import (
    require_GET,
    require_http_methods,
    require_POST,
    require_safe,
)
from django.views.decorators.vary import vary_on_headers
from django_htmx.middleware import HtmxDetails

from separations import (
    access,
    downloads,
    http_files,
    intake,
    jobs,
    listening,
    problems,
    rate_limits,
    results,
    sending,
    sentences,
    sharing,
    tasks,
    uploads,
    waiting,
)
from separations.access import Grant, SongKey
from separations.audio.formats import FORMATS, Format
from separations.clients import client
from separations.faults import Fault
from separations.forms import SeparationForm
from separations.models import Job, Upload
from separations.pages import (
    download_choices,
    job_view,
    mix_level_sentence,
    mixer_view,
    sharing_view,
    version,
)
from separations.rate_limits import limited
from separations.share_tokens import ShareToken
from separations.upload_limit import MOST_FILES, refused, too_large

DEMO_SONG = settings.BASE_DIR / "static" / "demo" / "feelings.m4a"
SONGS_ON_HOME = 50
STOP_POLLING = 286  # htmx's own status: swap this in and poll no more


class SiteRequest(HttpRequest):
    htmx: HtmxDetails


# Home


@limited("upload")
@never_cache
@vary_on_headers("HX-Request")
@require_http_methods(["GET", "HEAD", "POST"])
def home(request: SiteRequest) -> HttpResponse:
    """The upload form above the visitor's songs; POST takes one song or several."""
    if request.method == "POST":
        return _take_songs(request)
    return _home(request, SeparationForm(request.GET), [], 200)


def _home(
    request: HttpRequest, form: SeparationForm, errors: list[tuple[str, str]], status: int
) -> HttpResponse:
    own = access.visible_jobs(request).prefetch_related("stems")[:SONGS_ON_HOME]
    songs = [job_view(job) for job in own]
    context = {
        "form": form,
        "errors": errors,
        "songs": songs,
        "standstill": _standstill(),
        "any_active": any(song.active for song in songs),
        "max_upload_mb": settings.MAX_UPLOAD_MB,
        "too_large": sentences.sentence(too_large()),
        "max_minutes": settings.MAX_DURATION_SECONDS / 60,
        "extensions": ",".join(settings.ALLOWED_EXTENSIONS),
        "kinds": ", ".join(each.lstrip(".").upper() for each in settings.ALLOWED_EXTENSIONS),
    }
    response = render(request, "separations/home.html", context, status=status)
    access.introduce(request, response)
    return response


def _standstill() -> str:
    return sentences.standstill(waiting.standstill())


def _take_songs(request: SiteRequest) -> HttpResponse:
    """Make a job of every file; say beside the field what is wrong with the others."""
    form = SeparationForm(request.POST)
    made: list[Job] = []
    # FILE_UPLOAD_HANDLERS knows no other kind.
    files = cast(list[TemporaryUploadedFile], request.FILES.getlist("file"))
    turned_away = refused(request)
    if not files and not turned_away:
        turned_away.append(("", Fault("no_file")))
    for file in files:
        try:
            made.append(_queue(request, form, partial(uploads.accept, file, client(request))))
        except Fault as fault:
            turned_away.append((file.name or "", fault))
    errors = [(name, sentences.sentence(fault)) for name, fault in turned_away]
    status = sentences.status(turned_away[0][1]) if turned_away else 200
    if request.htmx:
        context = {"songs": [job_view(job) for job in made], "errors": errors}
        return render(request, "separations/_uploaded.html", context, status=status)
    if errors:
        return _home(request, form, errors, status)
    return (
        redirect("separations:job", made[0].pk) if len(made) == 1 else redirect("separations:home")
    )


def _queue(request: HttpRequest, form: SeparationForm, accept: Callable[[], Upload]) -> Job:
    """Take a song in and queue what was chosen for it; keep nothing when that fails."""
    job = intake.take_in(accept, form.options(), access.new_owner(request))
    tasks.wake()
    return job


@limited("action")
@require_POST
def demo(request: HttpRequest) -> HttpResponse:
    """Separate the song that comes with the site."""
    form = SeparationForm()
    try:
        job = _queue(request, form, lambda: uploads.accept_path(DEMO_SONG, DEMO_SONG.name))
    except Fault as fault:
        return _home(request, form, [("", sentences.sentence(fault))], sentences.status(fault))
    return redirect("separations:job", job.pk)


@require_safe
def about(request: HttpRequest) -> HttpResponse:
    context = {
        "models": SeparationForm().model_choices,
        "upload_minutes": settings.KEEP_UPLOADS_MINUTES,
        "result_hours": settings.KEEP_RESULTS_HOURS,
    }
    return render(request, "separations/about.html", context)


# A song


@never_cache
@require_safe
def job_page(request: HttpRequest, song: SongKey) -> HttpResponse:
    return _job_page(request, access.song_or_404(request, song))


def _job_page(
    request: HttpRequest, grant: Grant, error: str = "", status: int = 200
) -> HttpResponse:
    context = {**_song(request, grant), "error": error}
    return render(request, "separations/job.html", context, status=status)


def _refuse(request: HttpRequest, song: SongKey, fault: Fault) -> HttpResponse:
    """The song's page with what is wrong with what was asked for."""
    grant = access.song_or_404(request, song)
    return _job_page(request, grant, sentences.sentence(fault), sentences.status(fault))


def _song(request: HttpRequest, grant: Grant) -> dict[str, Any]:
    job = grant.job
    if not job.is_active:
        prefetch_related_objects([job], "stems")  # once, for all who look at them below
    chosen = {"model": job.model, "stems": job.stem_choice}
    song = job_view(job, grant)  # before the mixer: what is finished meanwhile is seen next time
    context: dict[str, Any] = {
        "song": song,
        "mixer": mixer_view(song),
        "formats": download_choices(),
    }
    # Only an ended song can be separated again; the many polls before need not ask for models.
    if not job.is_active and grant.may_change:
        context["form"] = SeparationForm(chosen)
    if song.stems and grant.may_share:
        context["sharing"] = sharing_view(job, request.build_absolute_uri)
    return context


@never_cache
@require_GET
def job_status(request: HttpRequest, song: SongKey) -> HttpResponse:
    """The part of the song's page that changes; polls itself while the job is active."""
    if _is_as_seen(request, song):
        return HttpResponse(status=204)
    grant = access.song_or_404(request, song)
    return _polled(request, "separations/_poll.html", _song(request, grant))


@never_cache
@require_GET
def job_card(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    """A song in the list on the home page, polling likewise; and what holds all of them up."""
    if _is_as_seen(request, job_id):
        return HttpResponse(status=204)
    job = access.job_or_404(request, job_id)
    context = {"song": job_view(job), "standstill": _standstill()}
    return _polled(request, "separations/_card_poll.html", context)


def _is_as_seen(request: HttpRequest, key: SongKey) -> bool:
    """Whether the page shows all there is; asked for each second, so it looks at little."""
    seen = request.GET.get("seen")
    if not seen:
        return False
    job = access.song_or_404(request, key, waiting.LOOKED_AT).job
    return job.is_active and seen == version(job, waiting.way_of(job))


def _polled(request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
    status = 200 if context["song"].active else STOP_POLLING
    return render(request, template, context, status=status)


@limited("action")
@require_POST
def cancel(request: HttpRequest, job_id: uuid.UUID) -> HttpResponseRedirect:
    grant = access.song_or_404(request, job_id)
    jobs.cancel(grant.job, grant.by)
    return HttpResponseRedirect(reverse("separations:job", args=[job_id]))


@limited("action")
@require_POST
def retry(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    grant = access.song_or_404(request, job_id)
    try:
        jobs.retry(grant.job, access.counted_owner(request, grant))
    except Fault as fault:
        return _refuse(request, job_id, fault)
    tasks.wake()
    return redirect("separations:job", job_id)


@limited("action")
@require_POST
def again(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    """The same song once more, with another model or other stems."""
    job = access.job_or_404(request, job_id)
    form = SeparationForm(request.POST)
    try:
        new = jobs.again(job, form.options(), access.new_owner(request))
    except Fault as fault:
        return _refuse(request, job_id, fault)
    tasks.wake()
    return redirect("separations:job", new.pk)


@limited("action")
@require_POST
def delete(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    job = access.job_or_404(request, job_id)
    title = job.upload.title
    jobs.remove(job)
    messages.success(request, sentences.deleted(title))
    return redirect("separations:home")


# Sharing


@limited("action")
@require_POST
def share(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    """Make a link that lets others listen to the song."""
    job = access.own_job_or_404(request, job_id)
    try:
        sharing.share(job, request.POST.get("lasts", ""))
    except Fault as fault:
        return _refuse(request, job_id, fault)
    return redirect(f"{reverse('separations:job', args=[job_id])}#links")


@limited("action")
@require_POST
def revoke(request: HttpRequest, job_id: uuid.UUID, link_id: uuid.UUID) -> HttpResponse:
    """End a link at once; one that has ended already stays so."""
    sharing.revoke(access.own_job_or_404(request, job_id), link_id)
    return redirect(f"{reverse('separations:job', args=[job_id])}#links")


# Listening


@require_safe
def chunk(request: HttpRequest, song: SongKey, stem: str, index: int) -> HttpResponse:
    """A second and a half of a stem, or of the song itself, for the player."""
    job = access.song_or_404(request, song).job
    try:
        found = listening.chunk(job, stem, index)
    except Fault as fault:
        return _plain(fault)
    results.use(job)
    response = HttpResponse(found.data, content_type="audio/flac")
    response.headers["X-Exponent"] = str(found.exponent)
    # What a run has made so far, another attempt may make anew.
    done = job.state == Job.State.DONE
    age = 600 if isinstance(song, ShareToken) else 86400  # an ended link is to end here as well
    lasting = f"private, max-age={age}, immutable" if done else "no-store"
    response.headers["Cache-Control"] = lasting
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


@require_safe
def peaks(request: HttpRequest, song: SongKey, stem: str) -> HttpResponseBase:
    """What a stem's waveform is drawn from, a byte for each `PEAK_FRAMES`; grows with the stem."""
    job = access.song_or_404(request, song).job
    try:
        view = results.View(job, results.BytesView(listening.peaks(job, stem)))
    except Fault as fault:
        return _plain(fault)
    etag = f'"{job.result_key[:32]}-{stem}-peaks-{view.size}"'
    kind = "application/octet-stream"
    response = http_files.send(request, view, kind, f"{stem}.peaks", etag, attach=False)
    response.headers["Cache-Control"] = "private, no-cache"
    return response


# Stems


@limited("listen")
@require_safe
def stem(request: HttpRequest, song: SongKey, stem: str) -> HttpResponseBase:
    """One stem, to play (inline) or, with `?download`, to keep."""
    job = access.song_or_404(request, song).job
    found = job.stems.select_related("job__upload").filter(name=stem).first()
    if found is None:
        return not_found(request)
    try:
        format, bit_rate = _format(request)
        span = _span(request, job)
        download = downloads.of_stem(found, format, bit_rate, span)
        if not format.bytes_per_sample:
            rate_limits.take("download", request)
        return sending.send(request, download, attach="download" in request.GET)
    except Fault as fault:
        return _not_sent(request, song, fault)


@limited("download")
@require_safe
def mix(request: HttpRequest, song: SongKey) -> HttpResponseBase:
    """The stems mixed as `mix` says (see `separations.audio.mix_text`), to keep."""
    job = access.song_or_404(request, song).job
    try:
        span = _span(request, job)
        download = downloads.of_mix(job, request.GET.get("mix", ""), span, *_format(request))
        return sending.send(request, download, attach=True)
    except Fault as fault:
        return _not_sent(request, song, fault)


@limited("download")
@never_cache
@require_safe
def mix_level(request: SiteRequest, song: SongKey) -> HttpResponse:
    """How loud a mix gets, in a sentence."""
    job = access.song_or_404(request, song).job
    status = 200
    try:
        peak = downloads.mix_peak(job, request.GET.get("mix", ""), _span(request, job))
        level = mix_level_sentence(peak)
    except Fault as fault:
        level = sentences.sentence(fault)
        status = 200 if request.htmx else sentences.status(fault)  # htmx shows no others
    return render(request, "separations/_mix_level.html", {"level": level}, status=status)


@limited("download")
@require_safe
def archive(request: HttpRequest, song: SongKey) -> HttpResponseBase:
    """All stems of a song as one ZIP."""
    job = access.song_or_404(request, song).job
    try:
        return sending.send_archive(request, job, *_format(request), _span(request, job))
    except Fault as fault:
        return _not_sent(request, song, fault)


def _format(request: HttpRequest) -> tuple[Format, int]:
    """Format and bit rate from a query such as `format=mp3-192`.

    Raises:
        Fault: bad_option when there is no such format.
    """
    asked = request.GET.get("format", "wav")
    allowed = [value for value, _label in download_choices()]
    if asked not in allowed:
        raise Fault("bad_option", option="format", allowed=", ".join(allowed))
    name, _, bit_rate = asked.partition("-")
    return FORMATS[name], int(bit_rate or 0)


def _span(request: HttpRequest, job: Job) -> downloads.Span:
    """The time range from a query such as `from=12.5&to=60`, the whole song without one."""
    return downloads.span_of(job, request.GET.get("from", ""), request.GET.get("to", ""))


def _not_sent(request: HttpRequest, song: SongKey, fault: Fault) -> HttpResponse:
    """Why there is no download: to people on the song's page, to players and programs in plain."""
    if "text/html" in request.headers.get("Accept", ""):
        return _refuse(request, song, fault)
    return _plain(fault)


def _plain(fault: Fault) -> HttpResponse:
    return HttpResponse(
        sentences.sentence(fault), status=sentences.status(fault), content_type="text/plain"
    )


# Errors


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    if problems.is_for_programs(request):
        return problems.response(Fault("not_found"))
    song = request.resolver_match and request.resolver_match.kwargs.get("song")
    # Back to a song after the log-in; the address of a shared one is not for other addresses.
    next_page = request.path if isinstance(song, uuid.UUID) else ""
    context = {"next": next_page, "shared": isinstance(song, ShareToken)}
    return render(request, "separations/not_found.html", context, status=404)


def stale_form(request: HttpRequest, reason: str = "") -> HttpResponse:
    """A form without its token: left open for days, without cookies, or sent by another site."""
    return _turned_away(request, Fault("stale_form"))


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """What Django itself does not take."""
    faults: dict[type[Exception], Fault] = {
        DisallowedHost: Fault("wrong_host"),
        RequestDataTooBig: Fault("form_too_large"),
        TooManyFieldsSent: Fault("form_too_large"),
        TooManyFilesSent: Fault("too_many_files", most=MOST_FILES),
    }
    return _turned_away(request, faults.get(type(exception), Fault("bad_request")))


def _turned_away(request: HttpRequest, fault: Fault) -> HttpResponse:
    if problems.is_for_programs(request):
        return problems.response(fault)
    if not hasattr(request, "htmx"):  # it did not get past the first middlewares
        return _plain(fault)
    sentence, status = sentences.sentence(fault), sentences.status(fault)
    if cast(SiteRequest, request).htmx:
        context = {"errors": [("", sentence)]}
        return render(request, "separations/_errors.html", context, status=status)
    page = {"sentence": sentence}
    return render(request, "separations/turned_away.html", page, status=status)


def broken(request: HttpRequest) -> HttpResponse:
    """Rendered without the database or the session: either may be what is broken."""
    # Where a view could not be reached, `rate_limits.Limits` never heard of it.
    fault = rate_limits.overloaded(sys.exc_info()[1]) or Fault("broken")
    if problems.is_for_programs(request):
        return problems.response(fault)
    response = render(None, "separations/broken.html", status=sentences.status(fault))
    problems.say_when(response, fault)
    return response
