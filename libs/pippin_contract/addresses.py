"""Which addresses what users write may lead to. Pure.

To be asked when the connection is made, of the very address that is connected to, so that neither a
redirect nor a name that resolves to something else the second time leads anywhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_network,
)
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Of CIDRs. Raises ValueError."""
    return tuple(map(ip_network, texts))


#: What clusters, companies and homes use for themselves.
PRIVATE: Final = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
#: Here clouds tell machines who they are and hand out their credentials.
_METADATA = networks(
    (
        "169.254.0.0/16",
        "fe80::/10",
        "fd00:ec2::/32",
        "fd20:ce::/32",
        "100.100.100.200/32",
        "168.63.129.16/32",
        "192.0.0.192/32",
    )
)
_NAT64 = ip_network("64:ff9b::/96")


def never(address: Address) -> bool:
    """Whether nothing is asked there, whatever is allowed."""
    address = plain(address)
    return address.is_multicast or address.is_unspecified or within(address, _METADATA)


def allows(address: Address, inside: Iterable[Network], *, public: bool = True) -> bool:
    """Whether it lies in one of these networks, or, if that is enough, is a public one."""
    address = plain(address)
    if never(address):
        return False
    return (public and address.is_global) or within(address, inside)


def plain(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one, by any of the ways to write one there."""
    if isinstance(address, IPv6Address):
        teredo = address.teredo
        inner = address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)
        if inner is None and address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        return inner or address
    return address


def within(address: Address, inside: Iterable[Network]) -> bool:
    return any(address.version == network.version and address in network for network in inside)
