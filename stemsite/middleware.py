"""Middleware: security headers on every response, and requests that the database cannot take."""

import re
from collections.abc import Callable

from django.conf import settings
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse

# Content-Security-Policy of pages, the admin included: this site's own files, no inline script or
# style. (Django 5.2 has no setting for it.)
PAGE = "; ".join(
    (
        "default-src 'none'",
        # WebAssembly shifts the pitch in the mixer; this allows neither eval nor inline scripts.
        "script-src 'self' 'wasm-unsafe-eval'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "media-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
# The policy of everything else that a browser may open as if it were a page (a stem, a picture, a
# text): nothing, in an origin of its own.
NO_PAGE = "default-src 'none'; frame-ancestors 'none'; sandbox"
# Browser features that no page here uses. Browsers keep the rest (sound, clipboard, full screen)
# to this site by default, and nothing is framed.
UNUSED = (
    "accelerometer",
    "bluetooth",
    "camera",
    "display-capture",
    "encrypted-media",
    "geolocation",
    "gyroscope",
    "hid",
    "idle-detection",
    "magnetometer",
    "microphone",
    "midi",
    "payment",
    "publickey-credentials-get",
    "screen-wake-lock",
    "serial",
    "usb",
    "xr-spatial-tracking",
)
NOT_PERMITTED = ", ".join(f"{feature}=()" for feature in UNUSED)


def security_headers(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Set the headers that a view has not set. (SecurityMiddleware adds HSTS and others.)"""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        headers = response.headers
        is_page = headers.get("Content-Type", "").startswith("text/html")
        headers.setdefault("Content-Security-Policy", PAGE if is_page else NO_PAGE)
        headers.setdefault("Permissions-Policy", NOT_PERMITTED)
        headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        # SecurityMiddleware does not set it on its own redirects.
        headers.setdefault("X-Content-Type-Options", "nosniff")
        # A response is for one visitor and no cache unless a view says otherwise. A 304 would
        # change the header of the response that the browser has stored.
        if response.status_code != 304:
            headers.setdefault("Cache-Control", "private, no-store")
        return response

    return middleware


SESSION_KEY = re.compile(r"[a-z0-9]{32}")  # as Django makes them


def refuse_nul_bytes(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Keep NUL characters from PostgreSQL, which refuses them with an error Django does not handle.

    Drops a session cookie that is no session key, and refuses a NUL in the admin's queries. (The
    site's own views check what they read.)
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        in_admin = request.path_info.startswith("/admin/")
        if in_admin and "%00" in request.META.get("QUERY_STRING", ""):
            raise BadRequest("a NUL in the query")
        name = settings.SESSION_COOKIE_NAME
        if name in request.COOKIES and not SESSION_KEY.fullmatch(request.COOKIES[name]):
            del request.COOKIES[name]
        return get_response(request)

    return middleware
