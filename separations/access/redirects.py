"""Safe redirects: `next` and htmx's current page lead to this site's own pages alone."""

from urllib.parse import urlsplit

from django.http import HttpRequest
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme

NEVER_NEXT = ("accounts:login", "accounts:signup", "accounts:logout")


def next_page(request: HttpRequest) -> str:
    """The address in `next`, if it is a page of this site to open after a log-in; else ""."""
    address = request.POST.get("next") or request.GET.get("next", "")
    if not is_on_this_site(request, address):
        return ""
    return "" if urlsplit(address).path in map(reverse, NEVER_NEXT) else address


def is_on_this_site(request: HttpRequest, address: str) -> bool:
    """Whether an address is on this site: a whole one, or a path from the root.

    Relative ones are refused: they lead elsewhere from another page.
    """
    from_the_root = address.startswith(("/", "http://", "https://"))
    return from_the_root and url_has_allowed_host_and_scheme(
        address, {request.get_host()}, require_https=request.is_secure()
    )


def current_page(request: HttpRequest) -> str:
    """The path of the page that sent an htmx request; "" where it is not on this site."""
    try:
        path = getattr(request, "htmx").current_url_abs_path or ""  # noqa: B009
    except (AttributeError, ValueError):  # the header holds no address
        return ""
    return path if is_on_this_site(request, path) else ""
