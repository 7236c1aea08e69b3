"""Request bodies that come in chunks, without a Content-Length (RFC 9112, 7.1).

gunicorn reads the chunks, but Django reads no further than the Content-Length. So such a body gets
the longest one that an upload may have, and ends where its last chunk does.
"""

import contextlib
import socket
from typing import Any

from django.conf import settings
from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]

FORM_BYTES = 1_000_000  # as `uploads.handlers.FORM_BYTES`


def admit(environ: dict[str, Any]) -> None:
    """Let Django read the body of a request if it comes in chunks."""
    if is_chunked(environ) and environ.get("wsgi.input_terminated"):
        environ["CONTENT_LENGTH"] = str(settings.MAX_UPLOAD_MB * 1_000_000 + FORM_BYTES)
        environ["wsgi.input"] = ChunkedBody(environ["wsgi.input"], environ.get("gunicorn.socket"))


def is_chunked(environ: dict[str, Any]) -> bool:
    return "HTTP_TRANSFER_ENCODING" in environ


class ChunkedBody:
    """A body in chunks. When they are malformed nothing more is read from the connection, or what
    follows would be taken for the next request (RFC 9112, 11.2).

    Raises:
        OSError: the chunks are malformed, or end too early.
    """

    def __init__(self, body: Any, connection: socket.socket | None) -> None:
        self._body, self._connection = body, connection

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
        return data
