"""Rules for webhook addresses that strangers choose, against server-side request forgery.

A site that calls any address can be sent to the machines around it: its own services, the router, a
cloud's metadata. So an address is checked twice: its text by `parse` and `looks_private`, and what
it resolves to by `is_public`, when the call is made. No Django here.
"""

import ipaddress
import re
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from separations.webhooks.special_addresses import Address, is_public

MOST_CHARACTERS = 500
PORTS = (80, 443)  # and those from 1024 on: below are services that no webhook has to talk to
# RFC 3986. Programs disagree on how to read other characters.
CHARACTERS = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
NAME = re.compile(rf"{LABEL}(?:\.{LABEL})*\.?")
NUMBER = re.compile(r"\d+|0x[0-9a-f]*", re.IGNORECASE)
# Names for local machines (RFC 6761, 6762, 8375, and ICANN's "internal").
NEAR = ("localhost", "localdomain", "local", "internal", "home.arpa")


class BadAddress(ValueError):
    """An address that cannot be called. code: long, characters, scheme, user, host or port."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


@dataclass(frozen=True)
class Target:
    """The parts of an http or https address. host: a name, or an IP address without brackets."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def header(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = {"http": 80, "https": 443}[self.scheme]
        return host if self.port == usual else f"{host}:{self.port}"


def parse(url: str) -> Target:
    """Parse an address: the one reading, for its check and for the call.

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
    """Whether a host is read as an IPv4 address by browsers and C libraries."""
    return NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]) is not None


def literal(host: str) -> Address | None:
    """The IP address a host is written as, in any form resolvers accept: 127.1, 0x7f000001."""
    try:
        if ":" in host:
            return None if "%" in host else ipaddress.IPv6Address(host)
        return ipaddress.IPv4Address(socket.inet_aton(host)) if _is_number(host) else None
    except (ValueError, OSError):
        return None


def looks_private(host: str) -> bool:
    """Whether a host's text shows that it is not on the public network."""
    address = literal(host)
    if address is not None:
        return not is_public(address)
    name = host.rstrip(".").lower()
    return "." not in name or any(name.endswith(f".{each}") for each in NEAR)
