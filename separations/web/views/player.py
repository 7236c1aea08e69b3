"""What the player on a song's page loads: chunks of stems, and their waveforms."""

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.http import (
    require_safe,
)

from separations.access import permissions, share_links
from separations.access.permissions import SongKey
from separations.delivery import byte_ranges, playback
from separations.delivery.byte_sources import InMemory, OfResult
from separations.errors.fault import Fault
from separations.jobs import results
from separations.logs.secret_tokens import ShareToken
from separations.models import Job
from separations.web.views.errors import plain_error


@require_safe
def chunk(request: HttpRequest, song: SongKey, stem: str, index: int) -> HttpResponse:
    """A second and a half of a stem, or of the song itself, for the player."""
    job = permissions.song_or_404(request, song).job
    try:
        found = playback.chunk(job, stem, index)
    except Fault as fault:
        return plain_error(fault)
    results.record_use(job)
    response = HttpResponse(found.data, content_type="audio/flac")
    response.headers["X-Exponent"] = str(found.exponent)
    # Another attempt of an unfinished job may make other bytes.
    done = job.state == Job.State.DONE
    age = share_links.CACHE_SECONDS if isinstance(song, ShareToken) else 86400
    lasting = f"private, max-age={age}, immutable" if done else "no-store"
    response.headers["Cache-Control"] = lasting
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


@require_safe
def peaks(request: HttpRequest, song: SongKey, stem: str) -> HttpResponseBase:
    """A stem's waveform: one byte for each PEAK_FRAMES. It grows with the stem."""
    job = permissions.song_or_404(request, song).job
    try:
        source = OfResult(job, InMemory(playback.peaks(job, stem)))
    except Fault as fault:
        return plain_error(fault)
    etag = f'"{job.result_key[:32]}-{stem}-peaks-{source.size}"'
    kind = "application/octet-stream"
    response = byte_ranges.send(request, source, kind, f"{stem}.peaks", etag, attach=False)
    response.headers["Cache-Control"] = "private, no-cache"
    return response
