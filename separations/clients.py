"""Which client a request comes from, for counting: an IPv4 address, or the /64 of an IPv6 one.

Whoever has one IPv6 address has its whole /64, so that counts as one. X-Forwarded-For says what a
client likes it to say, but for the entries that our own proxies appended: the last TRUSTED_PROXIES.
"""

import ipaddress
import re
from functools import lru_cache

from django.conf import settings
from django.http import HttpRequest

WITH_PORT = re.compile(r"([\d.]+):\d+|\[([0-9A-Fa-f:.]+)\](?::\d+)?")  # as some proxies write


def client(request: HttpRequest) -> str:
    """The network a request comes from; empty where the server does not know (a Unix socket)."""
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
    proxies = settings.TRUSTED_PROXIES
    if proxies and len(forwarded) >= proxies and (found := network(forwarded[-proxies].strip())):
        return found
    return network(request.META.get("REMOTE_ADDR", ""))


@lru_cache(maxsize=4096)
def network(address: str) -> str:
    """How an address is counted; empty when it is none."""
    if match := WITH_PORT.fullmatch(address):
        address = match[1] or match[2]
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((int(ip) >> 64 << 64, 64)))
