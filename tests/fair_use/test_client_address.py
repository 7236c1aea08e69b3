"""Which client a request counts for: behind proxies, over IPv6, with lies in its headers."""

import pytest
from django.test import RequestFactory
from pytest_django import Settings

from separations.fair_use.address_ranges import ranges
from separations.fair_use.client_address import client


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
        (0, "", "fe80::1%eth0", "fe80::/64"),
        (0, "", "::1", "::/64"),
        (0, "", "2002:c633:6401:7::1", "198.51.100.1"),
        (0, "", "64:ff9b::c633:6401", "198.51.100.1"),
        (0, "", "64:ff9b:1::c633:6401", "198.51.100.1"),
        (0, "", "::ffff:0:198.51.100.1", "198.51.100.1"),
        (0, "", "::198.51.100.1", "198.51.100.1"),
        (0, "", "2001:0:cb00:7107:8000:63bf:39cc:9bfe", "198.51.100.1"),  # Teredo
        (1, "[2002:c633:6401::1]:443", "10.0.0.1", "198.51.100.1"),
    ],
)
def test_a_request_counts_for(
    settings: Settings, proxies: int, forwarded: str, remote: str, counted: str
) -> None:
    settings.TRUSTED_PROXIES = proxies
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    request = RequestFactory().get("/", headers=headers, REMOTE_ADDR=remote)
    assert client(request) == counted


def test_ipv6_is_counted_with_the_ranges_around_it_and_ipv4_alone() -> None:
    counted = [(each.key, each.factor) for each in ranges("2001:db8:1:2ab::/64")]
    assert counted == [
        ("2001:db8:1:2ab::/64", 1),
        ("2001:db8:1:200::/56", 4),
        ("2001:db8:1::/48", 16),
    ]
    assert [each.key for each in ranges("198.51.100.1")] == ["198.51.100.1"]
    assert ranges("") == ()
