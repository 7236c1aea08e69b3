"""HTTP responses with byte ranges (RFC 9110, 14), for seeking and resumed downloads.

Django's FileResponse ignores them.
"""

import re

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from separations.delivery.byte_sources import ByteSource
from separations.delivery.file_names import content_disposition

RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def is_known(request: HttpRequest, etag: str) -> bool:
    """Whether the client has this version already (If-None-Match)."""
    known = request.headers.get("If-None-Match", "")
    return etag in known or known.strip() == "*"


def is_head(request: HttpRequest) -> bool:
    """Whether nothing is sent but the head. (The API's `request.method` is GET then.)"""
    return bool(request.META["REQUEST_METHOD"] == "HEAD")


def not_modified(etag: str) -> HttpResponse:
    return HttpResponse(status=304, headers={"ETag": etag})


def send(
    request: HttpRequest,
    source: ByteSource,
    content_type: str,
    name: str,
    etag: str,
    *,
    attach: bool,
) -> HttpResponseBase:
    """Answer with all bytes of `source`, or with the one range that was requested.

    A source of unknown length is sent as it grows, whole; a range of it can be had when its length
    is known. 304 when the client has it, 206 for a range, 416 for one outside the file. Several
    ranges at once, a broken Range header and one whose If-Range does not match get the whole file,
    as the RFC allows.
    """
    if is_known(request, etag):
        return not_modified(etag)
    size = source.size
    if size is None:
        response: HttpResponseBase = StreamingHttpResponse(
            () if is_head(request) else source.read(0, None), content_type=content_type
        )
        _describe(response, name, etag, attach=attach)
        return response
    asked = _asked(request, etag)
    found = _resolve(*asked, size)
    if found is None:
        response = HttpResponse(status=416)
        response.headers["Content-Range"] = f"bytes */{size}"
        return response
    (start, stop), status = found, 206 if any(asked) else 200
    response = StreamingHttpResponse(
        () if is_head(request) else source.read(start, stop),
        status=status,
        content_type=content_type,
    )
    response.headers["Content-Length"] = str(stop - start)
    _describe(response, name, etag, attach=attach)
    if status == 206:
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return response


def wanted(request: HttpRequest, etag: str, size: int) -> tuple[int, int] | None:
    """The bytes that a request is answered with, as start and stop; None where there are none."""
    return _resolve(*_asked(request, etag), size)


def _asked(request: HttpRequest, etag: str) -> tuple[str, str]:
    """The first and last byte of the one range that is asked for, both empty for the whole file."""
    match = RANGE.fullmatch(request.headers.get("Range", "").strip())
    if not match or request.headers.get("If-Range", etag) != etag:
        return "", ""
    return match[1], match[2]


def _describe(response: HttpResponseBase, name: str, etag: str, *, attach: bool) -> None:
    response.headers["ETag"] = etag
    response.headers["Accept-Ranges"] = "bytes"
    response.headers["Cache-Control"] = "private, max-age=3600"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Disposition"] = content_disposition(name, attach=attach)


def _resolve(first: str, last: str, size: int) -> tuple[int, int] | None:
    """A range as start and stop, the whole file for "-", None when it is outside the file."""
    if not first and not last:
        return 0, size
    if not first:
        length = min(int(last), size)
        return (size - length, size) if length else None
    start = int(first)
    stop = min(int(last) + 1, size) if last else size
    return (start, stop) if start < min(stop, size) else None
