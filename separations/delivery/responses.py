"""Responses with downloads, the same for pages and for the API.

Permission is checked again once a second while a download is sent: the song must still exist and
the share link must still be open. If not, the connection is closed before the end, from which every
client knows that the file is incomplete.
"""

import errno
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from django.db import DatabaseError, connection
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase

from separations.access import share_links
from separations.audio.encoding.formats import Format
from separations.audio.encoding.render import gain_db
from separations.audio.info import cover_type
from separations.delivery import byte_ranges, downloads
from separations.delivery.archives import Announced, Archive
from separations.delivery.byte_sources import ByteSource, InMemory
from separations.delivery.time_range import Span
from separations.errors.fault import Fault
from separations.fair_use import rate_limits
from separations.fair_use.address_ranges import widest_range
from separations.fair_use.client_address import client
from separations.jobs import results
from separations.logs.secret_tokens import ShareToken
from separations.models import Job

logger = logging.getLogger(__name__)
CHECK_SECONDS = 1.0
GAIN_HEADER = "Stemsite-Gain-Db"
ENDED = "Job %s: a download was ended in its midst: its link has ended, or the song was deleted"


def send(request: HttpRequest, download: downloads.Download, *, attach: bool) -> HttpResponseBase:
    """Send a stem or a mix, or the range of bytes that was requested.

    Raises:
        Fault: too_many_requests or site_limit, where it has to be encoded; see `Download.source`.
    """
    etag = f'"{download.identity}"'
    if byte_ranges.is_known(request, etag):
        return byte_ranges.not_modified(etag)
    results.record_use(download.job)  # before it is encoded, which takes a while
    source: ByteSource
    if byte_ranges.is_head(request):
        source = Announced(download.size)
    else:
        _count_encodings(request, [download])
        known = _is_old(request) or "Range" in request.headers
        source = download.source("all" if known else "some", widest_range(client(request)))
    response = byte_ranges.send(
        request,
        WhileAllowed(source, Permit.of(request, download.job)),
        download.format.content_type,
        download.file_name,
        etag,
        attach=attach,
    )
    return _with_gain(response, download)


def send_archive(
    request: HttpRequest,
    job: Job,
    format: Format,
    bit_rate: int,
    span: Span | None,
    rate: int,
) -> HttpResponseBase:
    """Send all stems of a job as one ZIP, or the range of bytes that was requested.

    Raises:
        Fault: result_gone where there are none; as `send`.
    """
    if not job.has_stems:
        raise Fault("result_gone")
    archive = Archive(job, downloads.of_stems(job, format, bit_rate, span, rate))
    etag = f'"{archive.identity}"'
    if byte_ranges.is_known(request, etag):
        return byte_ranges.not_modified(etag)
    wait: downloads.Wait = "all" if _is_old(request) or "Range" in request.headers else "some"
    if byte_ranges.is_head(request):
        wait = "none"
    else:
        _count_encodings(request, archive.stems)
    results.record_use(job)
    source = archive.source(wait, widest_range(client(request)))
    if wait == "all" and (found := byte_ranges.wanted(request, etag, source.size or 0)):
        _count_as_encodings(request, source.members_to_read(*found))  # it takes as long
    response = byte_ranges.send(
        request,
        WhileAllowed(source, Permit.of(request, job)),
        "application/zip",
        downloads.archive_name(archive.stems),
        etag,
        attach=True,
    )
    return _with_gain(response, archive.stems[0])


def _with_gain(response: HttpResponseBase, download: downloads.Download) -> HttpResponseBase:
    """Say by how much the sound was turned down, so that a program can undo it, where that is known
    without reading the sound."""
    gain = download.known_gain
    if response.status_code in (200, 206) and gain is not None:
        response.headers[GAIN_HEADER] = f"{gain_db(gain):.2f}"
    return response


def send_cover(request: HttpRequest, job: Job, seconds: int) -> HttpResponseBase:
    """Send the picture in the song's tags; browsers may keep it for so many seconds.

    Raises:
        Http404: it has none.
    """
    cover = job.upload.read_cover()
    if not cover:
        raise Http404
    kind, etag = cover_type(cover), f'"{job.upload.cover_sha256[:32]}"'
    name = f"cover.{kind.removeprefix('image/')}"
    response = byte_ranges.send(request, InMemory(cover), kind, name, etag, attach=False)
    response.headers["Cache-Control"] = f"private, max-age={seconds}"
    return response


def _count_encodings(request: HttpRequest, wanted: list[downloads.Download]) -> None:
    """Count the files that have to be encoded against the rate limit, before the first one."""
    _count_as_encodings(request, sum(each.must_be_made for each in wanted))


def _count_as_encodings(request: HttpRequest, number: int) -> None:
    if number:
        rate_limits.count_with_site("encode", request, number)


def _is_old(request: HttpRequest) -> bool:
    """HTTP/1.0, where only Content-Length tells a whole file from one that broke off."""
    return request.META.get("SERVER_PROTOCOL") == "HTTP/1.0"


# While it is allowed


class Ended(ConnectionResetError):
    """Ends a response early. A web server treats it as a client that disconnected."""

    def __init__(self) -> None:
        super().__init__(errno.ECONNRESET, "not to be sent on")


@dataclass(frozen=True)
class Permit:
    """The permission to send a song: the song exists and, if a link was used, the link is open."""

    job: Job
    link: ShareToken | None

    @staticmethod
    def of(request: HttpRequest, job: Job) -> "Permit":
        key = request.resolver_match and request.resolver_match.kwargs.get("song")
        return Permit(job, key if isinstance(key, ShareToken) else None)

    def holds(self) -> bool:
        """Whether it is still allowed: one query by an index. Without the database, it stays so."""
        try:
            if self.link is not None:
                return share_links.is_open(self.link)
            return Job.objects.filter(pk=self.job.pk).exists()
        except DatabaseError:
            connection.close_if_unusable_or_obsolete()  # so that the next check gets a new one
            return True


def _while_allowed(pieces: Iterable[bytes], permit: Permit) -> Iterator[bytes]:
    """`pieces` for as long as `permit` holds.

    Raises:
        Ended: it does not hold any more, or the files were deleted.
    """
    checked = time.monotonic()
    try:
        for piece in pieces:
            if time.monotonic() - checked >= CHECK_SECONDS:
                if not permit.holds():
                    raise Ended
                checked = time.monotonic()
            yield piece
    except Ended:
        logger.info(ENDED, permit.job.pk)
        raise
    except Exception as error:  # of any kind where files are deleted meanwhile
        if not permit.holds():
            logger.info(ENDED, permit.job.pk)
        elif isinstance(error, OSError):
            logger.error("Job %s: a download broke off: %s", permit.job.pk, error)
        else:
            raise
        raise Ended from None


@dataclass(frozen=True)
class WhileAllowed:
    """A byte source that ends when its permit does."""

    source: ByteSource
    permit: Permit

    @property
    def size(self) -> int | None:
        return self.source.size

    def read(self, start: int, stop: int | None) -> Iterator[bytes]:
        return _while_allowed(self.source.read(start, stop), self.permit)
