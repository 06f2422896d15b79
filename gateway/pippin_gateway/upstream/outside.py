"""New connections to providers outside: to addresses that may be asked, over TLS that is verified.

Without TLS only to networks that are allowed by name: what is asked and answered would be read by
everybody on the way.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from pippin_contract import addresses
from pippin_contract.addresses import Address, Network
from pippin_contract.providers import Place

from ..routing.retry import Failure
from .failure import UpstreamFailure
from .http1 import Connection

#: An address and a port.
Spot = tuple[str, int]


class Outside:
    """`networks`: where providers may lie beside public addresses; `shut`: the API server, which
    is none; `authority`: a file with certificates that are trusted besides the system's, if it is
    there."""

    def __init__(
        self,
        networks: tuple[Network, ...] = (),
        shut: Spot = ("", 0),
        authority: Path | None = None,
    ) -> None:
        self._networks = networks
        self._shut = shut
        self._trust = Trust(authority)

    async def connect(self, place: Place) -> Connection:
        """Open, and the provider's. Raises UpstreamFailure."""
        try:
            return await self._first(place)
        except OSError as error:
            raise UpstreamFailure(Failure.CONNECT, str(error)) from error

    async def _first(self, place: Place) -> Connection:
        """Of its addresses that takes the connection. Raises UpstreamFailure, OSError."""
        failure = OSError("the name has no address")
        for address in await self._allowed(place):
            try:
                context = await self._trust.now() if place.tls else None
                return await _connected(str(address), place, context)
            except ssl.SSLError as error:
                raise UpstreamFailure(Failure.TLS, str(error)) from error
            except OSError as error:
                failure = error
        raise failure

    async def _allowed(self, place: Place) -> Sequence[Address]:
        """Of the addresses that the name has now. Raises UpstreamFailure when none may be asked."""
        found, shut = await _resolved(place.host, place.port), await self._shut_now(place.port)
        allowed = [
            one
            for one in found
            if addresses.plain(one) not in shut
            and addresses.allows(one, self._networks, public=place.tls)
        ]
        if found and not allowed:
            words = f"{place.host} is at {found[0]}: gateway.config.providerNetworks"
            raise UpstreamFailure(Failure.FORBIDDEN_ADDRESS, words)
        return allowed

    async def _shut_now(self, port: int) -> Sequence[Address]:
        """Addresses of the API server, if it has that port."""
        if port != self._shut[1]:
            return ()
        try:
            return await _resolved(*self._shut)
        except OSError:
            return ()  # it is nowhere now


class Trust:
    """Whose certificates are believed; made when it is first needed, and when the file changed."""

    def __init__(self, authority: Path | None) -> None:
        self._authority = authority
        self._made: ssl.SSLContext | None = None
        self._version = (0, 0)

    async def now(self) -> ssl.SSLContext:
        """Raises OSError for a file that holds no certificates."""
        if self._made is not None and self._look() == self._version:
            return self._made
        return await asyncio.to_thread(self.context)  # it takes as long as some thousand events

    def context(self) -> ssl.SSLContext:
        """The same, while others wait."""
        version = self._look()
        if self._made is None or version != self._version:
            context = ssl.create_default_context()
            if version != (0, 0):
                context.load_verify_locations(self._authority)
            context.set_alpn_protocols(["http/1.1"])
            self._made, self._version = context, version
        return self._made

    def _look(self) -> tuple[int, int]:
        """Another one when the file is another; zeros: there is none."""
        try:
            found = self._authority.stat() if self._authority else None
        except FileNotFoundError:
            found = None
        return (found.st_mtime_ns, found.st_ino) if found else (0, 0)


async def _connected(where: str, place: Place, context: ssl.SSLContext | None) -> Connection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(
        lambda: Connection(loop),
        where,
        place.port,
        ssl=context,
        server_hostname=place.host if context else None,
    )
    return connection


async def _resolved(host: str, port: int) -> Sequence[Address]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # A zone ("%eth0") names an interface, and only link-local addresses have one.
    texts = [str(where[0]).partition("%")[0] for *_, where in found]
    return [ip_address(text) for text in dict.fromkeys(texts)]
