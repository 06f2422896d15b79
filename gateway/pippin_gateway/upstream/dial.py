"""A new connection to a replica: straight to its port, or through the TLS port of its node."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ssl
from typing import cast

from pippin_contract.endpoint import PROTOCOL, SERVER_NAME, Endpoint

from ..routing.retry import Failure
from .failure import UpstreamFailure
from .http1 import Connection

#: Bytes of the node's answer before the Pod's own begin.
MAX_ANSWER_BYTES = 8 * 1024


async def dial(endpoint: Endpoint, token: str) -> Connection:
    """Open, and known to be the Pod's. Raises UpstreamFailure."""
    try:
        return await (_through_node(endpoint, token) if endpoint.pin else _straight(endpoint))
    except OSError as error:
        raise UpstreamFailure(Failure.CONNECT, str(error)) from error


async def _straight(endpoint: Endpoint) -> Connection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(
        lambda: Connection(loop), endpoint.host, endpoint.port
    )
    return connection


async def _through_node(endpoint: Endpoint, token: str) -> Connection:
    loop = asyncio.get_running_loop()
    transport, knock = await loop.create_connection(
        lambda: _Knock(loop),
        endpoint.host,
        endpoint.port,
        ssl=_TLS,
        server_hostname=SERVER_NAME,
    )
    try:
        _check_pin(transport, endpoint.pin)
        transport.write(
            f"GET {endpoint.path} HTTP/1.1\r\nhost: {endpoint.authority}\r\n"
            f"authorization: Bearer {token}\r\n"
            f"connection: upgrade\r\nupgrade: {PROTOCOL}\r\n\r\n".encode()
        )
        _judge(await knock.answer)
    except BaseException:
        transport.abort()
        raise
    connection = Connection(loop)
    transport.set_protocol(connection)
    connection.connection_made(transport)
    if transport.is_closing():  # between the answer and now: nobody would be told
        connection.close()
    return connection


def _check_pin(transport: asyncio.Transport, pin: str) -> None:
    """Whoever answers there must show the certificate that the Pod's status names."""
    tls = cast(ssl.SSLObject, transport.get_extra_info("ssl_object"))
    shown = hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest()
    if not hmac.compare_digest(shown, pin):
        words = "the node shows another certificate than the Pod's status names"
        raise UpstreamFailure(Failure.CONNECT, words)


def _judge(status: int) -> None:
    if status == 101:
        return
    if status in (401, 403):
        raise UpstreamFailure(Failure.REFUSED_TOKEN, f"the node answered {status}")
    raise UpstreamFailure(Failure.CONNECT, f"the node answered {status}")


class _Knock(asyncio.Protocol):
    """Waits for the node's answer to the request for a Pod."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.answer: asyncio.Future[int] = loop.create_future()
        self._head = bytearray()

    def data_received(self, data: bytes) -> None:
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end and len(self._head) <= MAX_ANSWER_BYTES:
            return
        status = head.split(b" ", 2)[1:2]
        # A server says nothing before it is asked: bytes behind the head are nobody's answer.
        whole = bool(end) and not (rest and status == [b"101"])
        self._end(int(status[0]) if whole and status and status[0].isdigit() else 0)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(0)

    def _end(self, status: int) -> None:
        if not self.answer.done():
            self.answer.set_result(status)


def _context() -> ssl.SSLContext:
    """For certificates that are known by their pin, not by who signed them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


_TLS = _context()
