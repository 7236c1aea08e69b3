"""Addresses on the network that somebody else chose: what they name, and whether we may go there.

A site that fetches what strangers name can be sent to the machines around it: its own services, the
router, the metadata of a cloud (server-side request forgery). So an address is looked at twice: how
it is written, by `parse` and `looks_private`, and what it leads to, by `is_public`, when the call
is made. No Django here.
"""

import ipaddress
import re
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
MOST_CHARACTERS = 500
PORTS = (80, 443)  # and those from 1024 on: below are services that no webhook has to talk to
# RFC 3986. What else there could be, programs read in different ways.
CHARACTERS = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
NAME = re.compile(rf"{LABEL}(?:\.{LABEL})*\.?")
NUMBER = re.compile(r"\d+|0x[0-9a-f]*", re.IGNORECASE)
# Names that are for machines near by alone (RFC 6761, 6762, 8375, and ICANN's "internal").
NEAR = ("localhost", "localdomain", "local", "internal", "home.arpa")

GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # how networks without IPv4 reach it (RFC 6052)
# What the standard library calls global and is not for us: old tunnels, whose ends are IPv4
# addresses that nobody looked at, documentation (RFC 9637), and Azure's wire server.
REFUSED = [
    ipaddress.ip_network(each)
    for each in ("192.88.99.0/24", "2001::/23", "2002::/16", "3fff::/20", "168.63.129.16/32")
]


class BadAddress(ValueError):
    """An address nobody can be called at. code: long, characters, scheme, user, host or port."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


@dataclass(frozen=True)
class Target:
    """Where an http or https address leads. host: a name, or an address without brackets."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def header(self) -> str:
        """As the Host header names it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = {"http": 80, "https": 443}[self.scheme]
        return host if self.port == usual else f"{host}:{self.port}"


def parse(url: str) -> Target:
    """The one reading of an address, for the look at it and for the call.

    Raises:
        BadAddress: it cannot be called.
    """
    if len(url) > MOST_CHARACTERS:
        raise BadAddress("long")
    if not CHARACTERS.fullmatch(url):
        raise BadAddress("characters")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise BadAddress("host") from None
    if parts.scheme not in ("http", "https"):
        raise BadAddress("scheme")
    if "@" in parts.netloc:
        raise BadAddress("user")
    host = (parts.hostname or "").removesuffix(".")  # which names the same one
    if not _is_host(host):
        raise BadAddress("host")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, host, _port(parts.scheme, parts.netloc), path)


def _port(scheme: str, netloc: str) -> int:
    _, _, text = netloc.rpartition("]")[2].partition(":")
    if not text:
        return 443 if scheme == "https" else 80
    if not re.fullmatch(r"[1-9]\d{0,4}", text):
        raise BadAddress("port")
    port = int(text)
    if port not in PORTS and not 1024 <= port <= 65535:
        raise BadAddress("port")
    return port


def _is_host(host: str) -> bool:
    if ":" in host or _is_number(host):
        return literal(host) is not None
    return len(host) <= 253 and NAME.fullmatch(host) is not None


def _is_number(host: str) -> bool:
    """Whether a host is meant as an IPv4 address, as browsers and C libraries tell."""
    return NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]) is not None


def literal(host: str) -> Address | None:
    """The address that a host is written as, in any way that resolvers take: 127.1, 0x7f000001."""
    try:
        if ":" in host:
            return None if "%" in host else ipaddress.IPv6Address(host)
        return ipaddress.IPv4Address(socket.inet_aton(host)) if _is_number(host) else None
    except (ValueError, OSError):
        return None


def looks_private(host: str) -> bool:
    """Whether a host is, as it is written, none of the public network."""
    address = literal(host)
    if address is not None:
        return not is_public(address)
    name = host.rstrip(".").lower()
    return "." not in name or any(name.endswith(f".{each}") for each in NEAR)


def is_public(address: Address) -> bool:
    """Whether an address is one machine on the public network, in itself and in what it embeds."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address not in GLOBAL_UNICAST:
            return False
    if address.is_multicast or address.is_reserved or not address.is_global:
        return False
    return not any(address in network for network in REFUSED)
