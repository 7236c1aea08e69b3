"""Downloads as answers, the same for pages and programs."""

from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.http import content_disposition_header

from separations import downloads, http_files, results
from separations.audio.formats import Format
from separations.faults import Fault
from separations.models import Job


def send(request: HttpRequest, download: downloads.Download, *, attach: bool) -> HttpResponseBase:
    """A stem or a mix, or the range of it that was asked for."""
    etag = f'"{download.identity}"'
    if http_files.is_known(request, etag):
        return http_files.not_modified(etag)
    results.use(download.job)  # before it is encoded, which takes a while
    known = _is_old(request) or request.method == "HEAD" or "Range" in request.headers
    return http_files.send(
        request,
        download.view("all" if known else "some"),
        download.format.content_type,
        download.file_name,
        etag,
        attach=attach,
    )


def send_archive(
    request: HttpRequest, job: Job, format: Format, bit_rate: int, span: downloads.Span | None
) -> HttpResponseBase:
    """All stems of a job as one ZIP.

    Raises:
        Fault: result_gone where there are none.
    """
    if not job.has_stems:
        raise Fault("result_gone")
    results.use(job)
    stream = downloads.archive(job, format, bit_rate, span, whole=_is_old(request))
    response = StreamingHttpResponse(
        stream if request.method == "GET" else (), content_type="application/zip"
    )
    if stream.sized:
        response.headers["Content-Length"] = str(len(stream))
    name = downloads.file_name(job, "stems", "zip")
    response.headers["Content-Disposition"] = content_disposition_header(True, name) or "attachment"
    return response


def _is_old(request: HttpRequest) -> bool:
    """HTTP/1.0, where nothing but its length tells a whole file from one that broke off."""
    return request.META.get("SERVER_PROTOCOL") == "HTTP/1.0"
