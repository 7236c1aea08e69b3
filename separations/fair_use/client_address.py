"""The client address of a request, for limits.

A client can write anything into X-Forwarded-For, but for the entries that the site's own proxies
append: the last TRUSTED_PROXIES.
"""

from django.conf import settings
from django.http import HttpRequest

from separations.fair_use.address_ranges import client_range


def client(request: HttpRequest) -> str:
    """The client that sends a request; "" where the server has no address (a Unix socket).

    See `address_ranges.ranges` for the ranges it is counted in besides.
    """
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
    proxies = settings.TRUSTED_PROXIES
    if proxies and len(forwarded) >= proxies:
        found = client_range(forwarded[-proxies].strip())
        if found:
            return found
    return client_range(request.META.get("REMOTE_ADDR", ""))
