"""The WSGI application."""

import os
from typing import Any

import django
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.utils.http import parse_header_parameters

from separations.monitoring import sentry
from stemsite import data_folder
from stemsite.server import chunked_bodies

MOST_COOKIES = 16_384  # characters; browsers send some hundred of ours


class Request(WSGIRequest):
    """A request that is always read as UTF-8, whatever charset its header names.

    Django accepts any of Python's codecs by name, also those that are not for text, and decodes
    the query with it before the site's code can refuse it.
    """

    def __init__(self, environ: dict[str, Any]) -> None:
        """Admit bodies in chunks, and drop cookies that take long to parse; this site sets none.

        Before 3.11.10 and 3.12.6, Python's time for backslashes grows with the square of their
        number (CVE-2024-7592).
        """
        cookies = environ.get("HTTP_COOKIE", "")
        if "\\" in cookies or len(cookies) > MOST_COOKIES:
            parts = cookies[:MOST_COOKIES].split(";")
            environ["HTTP_COOKIE"] = ";".join(part for part in parts if "\\" not in part)
        chunked_bodies.admit(environ)
        super().__init__(environ)

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        try:
            kind, params = parse_header_parameters(meta.get("CONTENT_TYPE", ""))
        except ValueError:  # a parameter in a codec that does not decode it (RFC 2231)
            kind, params = "", {}
        params.pop("charset", None)
        self.content_type, self.content_params = kind, params

    def _load_post_and_files(self) -> None:
        """Read the form; if that fails, delete the files that are half here.

        Django does so only for bodies that end early, not for those that cannot be read on.
        """
        try:
            super()._load_post_and_files()
        except BaseException:
            for handler in self.upload_handlers:
                handler.upload_interrupted()
            raise


class Handler(WSGIHandler):
    request_class = Request


os.environ.setdefault("DJANGO_SETTINGS_MODULE", "stemsite.settings")
data_folder.prepare()
django.setup(set_prefix=False)
application = Handler()
sentry.start()
