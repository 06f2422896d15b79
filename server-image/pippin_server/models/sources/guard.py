"""Which addresses a source may lie at."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from pippin_contract import addresses
from pippin_contract.addresses import Address, Network

#: A registry or an object store may well be there.
_INSIDE = addresses.networks(addresses.PRIVATE)


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
            return connection, not addresses.plain(address).is_global
        if failure is not None:
            raise failure
        raise Refused(f"{host} is at {refused}, which is no public address")

    def allows(self, address: Address, *, private: bool) -> bool:
        return addresses.allows(address, self.networks + (_INSIDE if private else ()))


def _resolve(host: str, port: int) -> Iterator[Address]:
    seen: set[Address] = set()
    for *_, where in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        # A zone ("%eth0") names an interface, and only link-local addresses have one.
        address = ip_address(str(where[0]).partition("%")[0])
        if address not in seen:
            seen.add(address)
            yield address
