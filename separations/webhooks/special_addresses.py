"""Which IP addresses are on the public network, by a list of this module.

Python's `ipaddress` has the registries' state of its release (3.11 calls 192.0.0.0/24 and 3ffe::/16
global), so it is used only to test whether a range contains an address. Sources:
IANA's special-purpose address registries for IPv4 and IPv6 (RFC 6890), and its list of IPv6 global
unicast assignments. No Django here.
"""

import ipaddress

from separations.fair_use.address_ranges import embedded, tunnelled

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

NOT_PUBLIC_4 = [
    ipaddress.IPv4Network(each)
    for each in (
        "0.0.0.0/8",  # this network (RFC 791, 3.2)
        "10.0.0.0/8",  # private use (RFC 1918)
        "100.64.0.0/10",  # between a carrier and its customers (RFC 6598)
        "127.0.0.0/8",  # loopback (RFC 1122, 3.2.1.3)
        "168.63.129.16/32",  # Azure's wire server: public by number, inside by meaning
        "169.254.0.0/16",  # link local, and the metadata of clouds (RFC 3927)
        "172.16.0.0/12",  # private use (RFC 1918)
        # Protocol assignments (RFC 6890, 7335, 7600, 7723, 8155, 8880), once a cloud's metadata.
        "192.0.0.0/24",
        "192.0.2.0/24",  # documentation (RFC 5737)
        "192.31.196.0/24",  # AS112, answered by the nearest (RFC 7535)
        "192.52.193.0/24",  # multicast tunnels, likewise (RFC 7450)
        "192.88.99.0/24",  # relays of 6to4, likewise (RFC 7526)
        "192.168.0.0/16",  # private use (RFC 1918)
        "192.175.48.0/24",  # AS112 (RFC 7534)
        "198.18.0.0/15",  # benchmarks (RFC 2544)
        "198.51.100.0/24",  # documentation (RFC 5737)
        "203.0.113.0/24",  # documentation (RFC 5737)
        "224.0.0.0/4",  # multicast (RFC 5771)
        "240.0.0.0/4",  # reserved (RFC 1112, 4), and broadcast (RFC 919, 7)
    )
]
# What registries of the regions are given addresses from; all else in 2000::/3 is not in use. The
# wide ones leave room for what they are given next.
UNICAST_6 = [
    ipaddress.IPv6Network(each)
    for each in ("2001::/16", "2003::/18", "2400::/6", "2800::/6", "2c00::/12")
]
# In those. What lies outside of them is refused anyhow: ::/128 and ::1/128 (RFC 4291), 100::/64
# (RFC 6666), 100:0:0:1::/64 (RFC 9780), 2002::/16 (6to4, RFC 3056), 3ffe::/16 (6bone, RFC 3701),
# 3fff::/20 (documentation, RFC 9637), 5f00::/16 (segment routing, RFC 9602), fc00::/7 (RFC 4193),
# fe80::/10 (RFC 4291), fec0::/10 (RFC 3879), ff00::/8 (RFC 4291).
NOT_PUBLIC_6 = [
    ipaddress.IPv6Network(each)
    for each in (
        # Protocol assignments (RFC 2928), all of them: Teredo (RFC 4380), PCP and TURN anycast
        # (RFC 7723, 8155), DNS-SD (RFC 9665), benchmarks (RFC 5180), multicast tunnels (RFC 7450),
        # AS112 (RFC 7535), ORCHID (RFC 4843, 7343), drones (RFC 9374).
        "2001::/23",
        "2001:db8::/32",  # documentation (RFC 3849)
        "2620:4f:8000::/48",  # AS112 (RFC 7534)
    )
]
# Whose IPv4 address is called, by a gateway that a network without IPv4 has (RFC 6052), or by the
# machine itself (RFC 4291, 2.5.5.2).
LEADING_TO_IPV4 = [ipaddress.IPv6Network(each) for each in ("64:ff9b::/96", "::ffff:0:0/96")]


def is_public(address: Address) -> bool:
    """Whether an address is one machine on the public network, in itself and in what it embeds."""
    if isinstance(address, ipaddress.IPv4Address):
        return not _within(address, NOT_PUBLIC_4)
    inner = [found for found in (tunnelled(address), embedded(address)) if found is not None]
    if not all(map(is_public, inner)):
        return False
    if _within(address, LEADING_TO_IPV4):
        return True
    return _within(address, UNICAST_6) and not _within(address, NOT_PUBLIC_6)


def _within(
    address: Address, networks: list[ipaddress.IPv4Network] | list[ipaddress.IPv6Network]
) -> bool:
    return any(address in network for network in networks)
