"""Requests from pages of other origins (CORS): those of CORS_ALLOWED_ORIGINS may use the API, with
tokens alone."""

from urllib.parse import urlsplit

from corsheaders.middleware import CorsMiddleware
from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase


class CrossOriginMiddleware(CorsMiddleware):
    """Adds the headers of CORS, answers preflight requests, and drops cookies in both directions.

    Browsers send no cookies of ours across sites, but they do to and from a neighbour on another
    sub-domain or port of this host, whose pages must not act for who is logged in here.
    """

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if self._is_from_elsewhere(request):
            request.META.pop("HTTP_COOKIE", None)
            request.from_allowed_origin = True  # type: ignore[attr-defined]
        response = super().__call__(request)
        assert isinstance(response, HttpResponseBase)  # noqa: S101 - for the type checker
        if getattr(request, "from_allowed_origin", False):
            response.cookies.clear()  # of `csrftoken`, which forms alone need
        return response

    def is_enabled(self, request: HttpRequest) -> bool:
        """Nothing is added or answered while no origin is allowed."""
        return bool(settings.CORS_ALLOWED_ORIGINS) and super().is_enabled(request)

    def _is_from_elsewhere(self, request: HttpRequest) -> bool:
        origin = request.headers.get("Origin", "")
        if not origin or not self.is_enabled(request):
            return False
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        is_own = parts.netloc == request.headers.get("Host") and parts.scheme == request.scheme
        return not is_own and self.origin_found_in_white_lists(origin, parts)
