"""Which client a request counts for: behind proxies, over IPv6, with lies in its headers."""

import pytest
from django.test import RequestFactory
from pytest_django import Settings

from separations.clients import client


@pytest.mark.parametrize(
    ("proxies", "forwarded", "remote", "counted"),
    [
        (0, "203.0.113.9", "198.51.100.1", "198.51.100.1"),
        (1, "203.0.113.9", "10.0.0.1", "203.0.113.9"),
        (1, "1.1.1.1, 203.0.113.9", "10.0.0.1", "203.0.113.9"),
        (2, "1.1.1.1, 203.0.113.9, 10.0.0.2", "10.0.0.1", "203.0.113.9"),
        (2, "203.0.113.9", "10.0.0.1", "10.0.0.1"),
        (1, "", "10.0.0.1", "10.0.0.1"),
        (1, "unknown", "10.0.0.1", "10.0.0.1"),
        (1, "203.0.113.9, ", "10.0.0.1", "10.0.0.1"),
        (1, "' OR 1=1 --", "10.0.0.1", "10.0.0.1"),
        (1, "203.0.113.9", "", "203.0.113.9"),  # a proxy before a Unix socket
        (0, "203.0.113.9", "", ""),
        (0, "", "::ffff:198.51.100.1", "198.51.100.1"),
        (0, "", "2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64"),
        (1, "2001:db8:1:2:bbbb::2", "10.0.0.1", "2001:db8:1:2::/64"),
    ],
)
def test_a_request_counts_for(
    settings: Settings, proxies: int, forwarded: str, remote: str, counted: str
) -> None:
    settings.TRUSTED_PROXIES = proxies
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    request = RequestFactory().get("/", headers=headers, REMOTE_ADDR=remote)
    assert client(request) == counted
