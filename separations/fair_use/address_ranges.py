"""Clients and address ranges: which IP addresses are counted together.

An IPv4 address is one client. In IPv6 a client is a /64, which each subscriber has whole; many have
a /56 or a /48, so these ranges are counted too, with higher limits. An IPv6 address that embeds an
IPv4 address counts as that. No Django here.
"""

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache

WITH_PORT = re.compile(r"([\d.]+):\d+|\[([0-9A-Fa-f:.]+)\](?::\d+)?")  # as some proxies write
# IPv6 prefixes, and by how many bits an address is shifted to have its IPv4 address as last bits.
EMBEDDING = [
    (ipaddress.IPv6Network(prefix), shift)
    for prefix, shift in (
        ("::/96", 0),  # IPv4-compatible (RFC 4291, 2.5.5.1)
        ("::ffff:0:0/96", 0),  # IPv4-mapped (RFC 4291, 2.5.5.2)
        ("::ffff:0:0:0/96", 0),  # IPv4-translated (RFC 2765)
        ("64:ff9b::/96", 0),  # NAT64 (RFC 6052)
        ("64:ff9b:1::/48", 0),  # NAT64 of a network's own, nearly always a /96 of it (RFC 8215)
        ("2001::/32", 0),  # Teredo (RFC 4380), whose bits are inverted
        ("2002::/16", 80),  # 6to4 (RFC 3056)
    )
]
TEREDO = ipaddress.IPv6Network("2001::/32")
ISATAP = (0x00005EFE, 0x02005EFE)  # the first half of an interface's identifier (RFC 5214)
LOWEST_EMBEDDED = 2  # :: and ::1 are addresses of their own
WIDER = ((56, 4, 1.5), (48, 16, 2.0))  # IPv6 ranges: bits, factor, at_once; see `Range`


@dataclass(frozen=True)
class Range:
    """A client (factor 1), or an address range that contains it.

    factor: how many times a client's rate limit the whole range has.
    at_once: how many times a client's share of threads it has; less than factor, as threads do not
        grow with the number of clients.
    """

    key: str
    factor: int = 1
    at_once: float = 1.0


def embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address embeds by its prefix, if it does."""
    number = int(address)
    if number < LOWEST_EMBEDDED:
        return None
    for prefix, shift in EMBEDDING:
        if address in prefix:
            found = number >> shift & 0xFFFFFFFF
            return ipaddress.IPv4Address(found ^ 0xFFFFFFFF if prefix == TEREDO else found)
    return None


def tunnelled(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address in the interface identifier of an ISATAP address."""
    number = int(address)
    if number >> 32 & 0xFFFFFFFF not in ISATAP:
        return None
    return ipaddress.IPv4Address(number & 0xFFFFFFFF)


@lru_cache(maxsize=4096)
def client_range(address: str) -> str:
    """The client of an IP address: "198.51.100.1" or "2001:db8:1:2::/64"; "" for no address."""
    if match := WITH_PORT.fullmatch(address):
        address = match[1] or match[2]
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv6Address):
        inner = embedded(ip)
        return str(inner) if inner is not None else _prefix(int(ip), 64)
    return str(ip)


@lru_cache(maxsize=4096)
def ranges(client: str) -> tuple[Range, ...]:
    """The client (see `client_range`) and the ranges that contain it, narrowest first.

    IPv4 has no wider ranges: neighbours there are mostly strangers, and the limits of the whole
    site stop attackers who rent many addresses.
    """
    if not client:
        return ()
    if not client.endswith("::/64"):
        return (Range(client),)
    number = int(ipaddress.IPv6Network(client).network_address)
    wider = [Range(_prefix(number, bits), factor, many) for bits, factor, many in WIDER]
    return (Range(client), *wider)


def widest_range(client: str) -> str:
    """The widest range that contains a client; "" for "". For resources too scarce to scale."""
    return ranges(client)[-1].key if client else ""


def _prefix(number: int, bits: int) -> str:
    shift = 128 - bits
    return str(ipaddress.IPv6Network((number >> shift << shift, bits)))
