"""Whether the site may listen on its address without a proxy.

A proxy buffers slow clients and limits connections. Without one a few clients can hold all threads
of the site, so it listens on a public address only if DIRECT says so.
"""

import ipaddress
import socket
from contextlib import suppress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def refusal(host: str, *, proxies: int, direct: bool) -> str:
    """Why the site refuses to listen on `host`, and what to do; "" if it does not refuse."""
    if proxies or direct or not is_public(host):
        return ""
    return (
        f"HOST is {host}, which anybody may reach, and TRUSTED_PROXIES is 0. Put a proxy before "
        "the site and set TRUSTED_PROXIES=1, or set DIRECT=yes where no stranger can reach it: in "
        "a home network, or behind a port that a container's host keeps to itself."
    )


def is_public(host: str) -> bool:
    """Whether `host` is a public address, or stands for all addresses of the machine."""
    return any(each.is_unspecified or each.is_global for each in _addresses(host))


def _addresses(host: str) -> list[Address]:
    """The addresses that a server at `host` listens on, as the system resolves it (0: 0.0.0.0)."""
    found: list[Address] = []
    with suppress(OSError, UnicodeError):  # the web server reports that
        for *_, place in socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM):
            address = ipaddress.ip_address(str(place[0]).partition("%")[0])
            inner = getattr(address, "ipv4_mapped", None)
            found.append(inner or address)
    return found
