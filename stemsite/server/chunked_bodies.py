"""Request bodies that come in chunks, without a Content-Length (RFC 9112, 7.1).

gunicorn reads the chunks, but Django reads no further than the Content-Length. So a form with files
gets a length that no body reaches, and ends where its last chunk does; other bodies get none, and
are refused by their head (see `fair_use.middleware`).
"""

import contextlib
import socket
import sys
from typing import Any

from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]

from separations.errors.body_too_large import BodyTooLarge

FORM_BYTES = 1_000_000  # of a body, until the upload handlers allow more


def admit(environ: dict[str, Any]) -> None:
    """Let Django read a form with files that comes in chunks."""
    kind = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    is_form = kind == "multipart/form-data"
    if is_chunked(environ) and is_form and environ.get("wsgi.input_terminated"):
        environ["CONTENT_LENGTH"] = str(sys.maxsize)
        environ["wsgi.input"] = ChunkedBody(environ["wsgi.input"], environ.get("gunicorn.socket"))


def is_chunked(environ: dict[str, Any]) -> bool:
    return "HTTP_TRANSFER_ENCODING" in environ


class ChunkedBody:
    """A body in chunks, of FORM_BYTES at most unless `allow` says more.

    When the chunks are malformed nothing more is read from the connection, or what follows would be
    taken for the next request (RFC 9112, 11.2).

    Raises:
        BodyTooLarge: more came than is allowed. It never seems to end there.
        OSError: the chunks are malformed, or end too early.
    """

    def __init__(self, body: Any, connection: socket.socket | None) -> None:
        self._body, self._connection = body, connection
        self._most, self._received = FORM_BYTES, 0

    def allow(self, most: int) -> None:
        """Set how many bytes the whole body may have."""
        self._most = most

    def read(self, *size: int) -> bytes:
        return self._checked(self._body.read, *size)

    def readline(self, *size: int) -> bytes:
        return self._checked(self._body.readline, *size)

    def _checked(self, read: Any, *size: int) -> bytes:
        try:
            data: bytes = read(*size)
        except (OSError, ParseException) as error:
            if self._connection is not None:
                with contextlib.suppress(OSError):
                    self._connection.shutdown(socket.SHUT_RD)
            raise OSError(str(error)) from error
        self._received += len(data)
        if self._received > self._most:
            raise BodyTooLarge(f"more than {self._most} bytes in chunks")
        return data
