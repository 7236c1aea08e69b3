"""What is on the public network and what is not, whatever Python's own list says."""

import ipaddress

import pytest

from separations.webhooks.special_addresses import is_public

# First and last of each range that must not be called, and the neighbours that may be.
NOT_PUBLIC = [
    "0.0.0.0",
    "0.255.255.255",
    "10.0.0.0",
    "10.255.255.255",
    "100.64.0.0",
    "100.127.255.255",
    "127.0.0.0",
    "127.255.255.255",
    "168.63.129.16",
    "169.254.0.0",
    "169.254.255.255",
    "172.16.0.0",
    "172.31.255.255",
    "192.0.0.0",
    "192.0.0.9",
    "192.0.0.10",
    "192.0.0.170",
    "192.0.0.192",
    "192.0.0.255",
    "192.0.2.0",
    "192.0.2.255",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.0",
    "192.88.99.2",
    "192.88.99.255",
    "192.168.0.0",
    "192.168.255.255",
    "192.175.48.1",
    "198.18.0.0",
    "198.19.255.255",
    "198.51.100.0",
    "198.51.100.255",
    "203.0.113.0",
    "203.0.113.255",
    "224.0.0.0",
    "239.255.255.255",
    "240.0.0.0",
    "255.255.255.254",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::93.184.215.14",
    "::ffff:0:93.184.215.14",
    "64:ff9b:1::1",
    "64:ff9b:1::93.184.215.14",
    "64:ff9b:2::1",
    "100::1",
    "100:0:0:1::1",
    "100:0:0:2::1",
    "1000::1",
    "1fff:ffff::1",
    "2001::",
    "2001:1::1",
    "2001:1::3",
    "2001:2::1",
    "2001:3::1",
    "2001:4:112::1",
    "2001:10::1",
    "2001:20::1",
    "2001:30::1",
    "2001:1ff:ffff:ffff::1",
    "2001:db8::",
    "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
    "2002::",
    "2002:5db8:d70e::1",
    "2003:4000::1",
    "2100::1",
    "23ff::1",
    "2620:4f:8000::1",
    "2620:4f:8000:ffff::1",
    "2c10::1",
    "2d00::1",
    "3000::1",
    "3ffe::1",
    "3ffe:ffff::1",
    "3fff::1",
    "3fff:fff:ffff::1",
    "3fff:1000::1",
    "4000::1",
    "5f00::1",
    "5f00:ffff::1",
    "8000::1",
    "fbff::1",
    "fc00::1",
    "fd00::1",
    "fdff:ffff::1",
    "fe00::1",
    "fe80::1",
    "febf:ffff::1",
    "fec0::1",
    "feff::1",
    "ff00::1",
    "ff02::1",
    "ffff::1",
]
PUBLIC = [
    "1.0.0.0",
    "9.255.255.255",
    "11.0.0.0",
    "93.184.215.14",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "168.63.129.17",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "191.255.255.255",
    "192.0.1.0",
    "192.0.3.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "198.51.99.255",
    "198.51.101.0",
    "203.0.112.255",
    "203.0.114.0",
    "223.255.255.255",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2001:db7:ffff::1",
    "2001:db9::1",
    "2003:3fff:ffff::1",
    "2400:cb00:2048:1::1",
    "2606:2800:21f:cb07::1",
    "2620:4f:7fff::1",
    "2620:4f:8001::1",
    "2630::1",
    "2803:f800:50::1",
    "2a00:1450:4001:80b::200e",
    "2a10:50c0::1",
    "2c0f:fb50:4003::1",
]
WRITTEN_WITH_IPV4 = (
    "::ffff:{}",  # mapped
    "64:ff9b::{}",  # NAT64
    "2606:2800:21f:cb07:0:5efe:{}",  # ISATAP
    "2606:2800:21f:cb07:200:5efe:{}",
)


@pytest.fixture(params=["as it is", "calls all global", "calls none global"])
def python(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Python itself thinks of addresses must not matter."""
    if request.param == "as it is":
        return
    all_global = request.param == "calls all global"
    for kind in (ipaddress.IPv4Address, ipaddress.IPv6Address):
        for name in ("is_private", "is_reserved", "is_multicast", "is_loopback", "is_link_local"):
            monkeypatch.setattr(kind, name, property(lambda _self: not all_global))
        monkeypatch.setattr(kind, "is_global", property(lambda _self: all_global))
    for name in ("ipv4_mapped", "sixtofour", "teredo"):
        monkeypatch.setattr(ipaddress.IPv6Address, name, property(lambda _self: None))


@pytest.mark.usefixtures("python")
def test_our_own_list_says_what_is_public() -> None:
    wrong = [each for each in NOT_PUBLIC if is_public(ipaddress.ip_address(each))]
    wrong += [each for each in PUBLIC if not is_public(ipaddress.ip_address(each))]
    assert wrong == []


@pytest.mark.usefixtures("python")
@pytest.mark.parametrize("form", WRITTEN_WITH_IPV4)
def test_an_ipv4_address_inside_counts_as_well(form: str) -> None:
    for each in (*NOT_PUBLIC, *PUBLIC):
        if ":" not in each:
            address = ipaddress.ip_address(form.format(each))
            assert is_public(address) == (each in PUBLIC), address
