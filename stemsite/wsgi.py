"""What gunicorn serves."""

import os
from typing import Any

import django
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.utils.http import parse_header_parameters

from stemsite import sentry


class Request(WSGIRequest):
    """A request in UTF-8, as the site's forms send it, whatever its header says.

    Django takes any codec of Python's by name, also such as are for other things than text, and
    reads the query with it before any of the site's code could say what is wrong.
    """

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        try:
            kind, params = parse_header_parameters(meta.get("CONTENT_TYPE", ""))
        except ValueError:  # a parameter in a codec that does not fit (RFC 2231)
            kind, params = "", {}
        params.pop("charset", None)
        self.content_type, self.content_params = kind, params


class Handler(WSGIHandler):
    request_class = Request


os.environ.setdefault("DJANGO_SETTINGS_MODULE", "stemsite.settings")
django.setup(set_prefix=False)
application = Handler()
sentry.start()
