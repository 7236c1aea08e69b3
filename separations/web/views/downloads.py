"""Downloads of a song's page: a stem, a mix, all stems; and how loud a mix gets."""

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import (
    require_safe,
)

from separations.access import permissions, share_links
from separations.access.permissions import SongKey
from separations.audio.encoding.formats import (
    DEFAULT_FORMAT,
    MODEL_RATE,
    Format,
    read_format_choice,
    read_rate,
)
from separations.delivery import downloads, responses, time_range
from separations.delivery.time_range import Span
from separations.errors import user_messages
from separations.errors.fault import Fault
from separations.fair_use import rate_limits
from separations.fair_use.address_ranges import widest_range
from separations.fair_use.client_address import client
from separations.fair_use.rate_limits import limited
from separations.logs.secret_tokens import ShareToken
from separations.models import Job
from separations.web.presenters.levels import mix_level_sentence
from separations.web.site_request import SiteRequest
from separations.web.views.errors import plain_error
from separations.web.views.song import refused_page


@limited("listen")
@require_safe
def stem(request: HttpRequest, song: SongKey, stem: str) -> HttpResponseBase:
    """One stem: inline to play it, or with `?download` as an attachment."""
    job = permissions.song_or_404(request, song).job
    found = permissions.stem_or_404(job, stem)
    try:
        format, bit_rate, rate = _format(request, job)
        span = _span(request, job)
        download = downloads.of_stem(found, format, bit_rate, span, rate)
        if format.wav is None:
            rate_limits.count_request("download", request)
        return responses.send(request, download, attach="download" in request.GET)
    except Fault as fault:
        return _download_error(request, song, fault)


@limited("listen")
@require_safe
def cover(request: HttpRequest, song: SongKey) -> HttpResponseBase:
    """The picture in the song's tags."""
    job = permissions.song_or_404(request, song).job
    is_shared = isinstance(song, ShareToken)
    return responses.send_cover(request, job, share_links.CACHE_SECONDS if is_shared else 86400)


@limited("download")
@require_safe
def mix(request: HttpRequest, song: SongKey) -> HttpResponseBase:
    """The stems mixed as the parameter `mix` says: see `separations.audio.mixing.mix_spec`."""
    job = permissions.song_or_404(request, song).job
    try:
        span = _span(request, job)
        download = downloads.of_mix(job, request.GET.get("mix", ""), span, *_format(request, job))
        return responses.send(request, download, attach=True)
    except Fault as fault:
        return _download_error(request, song, fault)


@limited("download")
@never_cache
@require_safe
def mix_level(request: SiteRequest, song: SongKey) -> HttpResponse:
    """A sentence about a mix's peak."""
    job = permissions.song_or_404(request, song).job
    status = 200
    try:
        text, span = request.GET.get("mix", ""), _span(request, job)
        peak = downloads.mix_peak(job, text, span, widest_range(client(request)))
        level = mix_level_sentence(peak)
    except Fault as fault:
        level = user_messages.sentence(fault)
        status = 200 if request.htmx else user_messages.status(fault)  # htmx swaps no error in
    return render(request, "separations/_mix_level.html", {"level": level}, status=status)


@limited("download")
@require_safe
def archive(request: HttpRequest, song: SongKey) -> HttpResponseBase:
    """All stems of a song as one ZIP."""
    job = permissions.song_or_404(request, song).job
    try:
        format, bit_rate, rate = _format(request, job)
        return responses.send_archive(request, job, format, bit_rate, _span(request, job), rate)
    except Fault as fault:
        return _download_error(request, song, fault)


def _format(request: HttpRequest, job: Job) -> tuple[Format, int, int]:
    """Format, bit rate and sample rate from a query such as `format=mp3-192&sample_rate=song`.

    Raises:
        Fault: bad_option when there is no such format; rate_not_in_format.
    """
    format, bit_rate = read_format_choice(request.GET.get("format", DEFAULT_FORMAT))
    choice = request.GET.get("sample_rate", MODEL_RATE)
    return format, bit_rate, read_rate(choice, job.upload.sample_rate, format)


def _span(request: HttpRequest, job: Job) -> Span:
    """The time range from a query such as `from=12.5&to=60`, the whole song without one."""
    return time_range.span_of(job, request.GET.get("from", ""), request.GET.get("to", ""))


def _download_error(request: HttpRequest, song: SongKey, fault: Fault) -> HttpResponse:
    """Why a download failed: on the song's page for browsers, as text for players and programs."""
    if "text/html" in request.headers.get("Accept", ""):
        return refused_page(request, song, fault)
    return plain_error(fault)
