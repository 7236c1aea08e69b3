"""Response headers for everything the site sends (Django 5.2 has no policies of its own), and what
a request may not bring in."""

import re
from collections.abc import Callable

from django.conf import settings
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse

# What a page may do: use this site's own files, and nothing else. No inline script or style
# anywhere, the admin included.
PAGE = "; ".join(
    (
        "default-src 'none'",
        # WebAssembly, which shifts pitch in the mixer; it opens neither eval nor inline scripts.
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
# What anything else may do that a browser can be brought to open as if it were a page: a stem, a
# picture, a text. Nothing at all, in an origin of its own.
NO_PAGE = "default-src 'none'; frame-ancestors 'none'; sandbox"
# What pages here never ask for. The rest (sound, clipboard, full screen) is this site's own alone
# by the browsers' defaults, and is never handed on: nothing is framed.
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


def protective_headers(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Set what no view said otherwise. (HSTS, nosniff and others come from SecurityMiddleware.)"""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        headers = response.headers
        is_page = headers.get("Content-Type", "").startswith("text/html")
        headers.setdefault("Content-Security-Policy", PAGE if is_page else NO_PAGE)
        headers.setdefault("Permissions-Policy", NOT_PERMITTED)
        headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        # Even where SecurityMiddleware did not come to it: an answer that it gave itself.
        headers.setdefault("X-Content-Type-Options", "nosniff")
        # Whatever is not said to be for everybody is for one visitor, and for no cache. An answer
        # without a body (304) would change what is said of the one that the browser has.
        if response.status_code != 304:
            headers.setdefault("Cache-Control", "private, no-store")
        return response

    return middleware


SESSION_KEY = re.compile(r"[a-z0-9]{32}")  # as Django makes them


def well_formed(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Keep NULs from PostgreSQL, which takes none, with an error that Django does not expect.

    A cookie that is no session's key is dropped, and a NUL in a search of the admin refused. (What
    visitors may ask for is looked at where it is read.)
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
