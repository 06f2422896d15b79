"""Which addresses a source may lie at.

Looked at when the connection is made, on the very address that is connected to, so that neither a
redirect nor a name that resolves to something else the second time leads anywhere else.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from .base import Network

Address = IPv4Address | IPv6Address

#: Whatever is allowed: here clouds tell machines who they are and hand out their credentials.
_METADATA = tuple(
    ip_network(text)
    for text in (
        "169.254.0.0/16",
        "fe80::/10",
        "fd00:ec2::/32",
        "fd20:ce::/32",
        "100.100.100.200/32",
        "168.63.129.16/32",
        "192.0.0.192/32",
    )
)
#: What clusters and companies use for themselves; a registry or an object store may well be there.
_INSIDE = tuple(
    ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)


class Refused(Exception):
    """Nothing is asked at this address."""


@dataclass(frozen=True, slots=True)
class Guard:
    """`networks`: private ones that are allowed to every source."""

    networks: tuple[Network, ...] = ()

    def connect(
        self, host: str, port: int, timeout: float, *, private: bool
    ) -> tuple[socket.socket, bool]:
        """A connection, and whether it leads to a private address. Raises Refused, OSError.

        `private`: addresses inside a cluster or a company are allowed.
        """
        refused: Address | None = None
        failure: OSError | None = None
        for address in _resolve(host, port):
            if not self.allows(address, private=private):
                refused = address
                continue
            try:
                connection = socket.create_connection((str(address), port), timeout)
            except OSError as error:
                failure = error
                continue
            return connection, not _plain(address).is_global
        if failure is not None:
            raise failure
        raise Refused(f"{host} is at {refused}, which is no public address")

    def allows(self, address: Address, *, private: bool) -> bool:
        address = _plain(address)
        if address.is_multicast or address.is_unspecified or _within(address, _METADATA):
            return False
        if address.is_global or _within(address, self.networks):
            return True
        return private and _within(address, _INSIDE)


def _resolve(host: str, port: int) -> Iterator[Address]:
    seen: set[Address] = set()
    for *_, where in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        # A zone ("%eth0") names an interface, and only link-local addresses have one.
        address = ip_address(str(where[0]).partition("%")[0])
        if address not in seen:
            seen.add(address)
            yield address


def _plain(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one, by any of the ways to write one there."""
    if isinstance(address, IPv6Address):
        teredo = address.teredo
        inner = address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)
        if inner is None and address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        return inner or address
    return address


_NAT64 = ip_network("64:ff9b::/96")


def _within(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
