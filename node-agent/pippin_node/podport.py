"""The node's TLS port: who asks for Pods gets to a Pod, everybody else to the kubelet API.

The gateway knows this machine by the certificate whose fingerprint stands in the Pods' status, and
the machine knows the gateway by the token that the Pod itself would ask for. After that the two
ends are joined, byte for byte: nothing here reads requests or answers.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import io
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pippin_contract import serverconfig
from pippin_contract.endpoint import PROTOCOL, SERVER_NAME
from pippin_contract.wire import SERVER_CONFIG_FILE
from pippin_edge.errors import Unauthenticated
from pippin_edge.tokens import Verifier

from . import certificates
from .pods import PodManager
from .ports import LOOPBACK
from .records import write_private
from .worker import PodWorker

log = structlog.get_logger(__name__)

BUNDLE = "pods.pem"
#: Seconds within which a caller has said which Pod it wants.
KNOCK_SECONDS = 10.0
#: Bytes in which it must have said so.
MAX_KNOCK_BYTES = 8 * 1024
#: Connections to Pods at one time.
MAX_CONNECTIONS = 2048


def _bundle(root: Path, node: str) -> bytes:
    """The certificate for Pods: made once and kept, since gateways know it by its fingerprint."""
    path = root / BUNDLE
    if not path.exists():
        write_private(path, certificates.self_signed(node, [SERVER_NAME], certificates.utc_now()))
    return path.read_bytes()


def fingerprint(pem: bytes) -> str:
    """SHA-256 of the certificate in a bundle."""
    certificate = x509.load_pem_x509_certificate(pem)
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


class PodPort:
    """Makes the protocol of every new connection on the node's TLS port."""

    def __init__(
        self, pods: PodManager, root: Path, node: str, kubelet: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        self.pods = pods
        self.connections = 0
        self._kubelet = kubelet
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_3
        #: By which gateways know this node.
        self.pin = fingerprint(_bundle(root, node))
        self._tls.load_cert_chain(root / BUNDLE)

    def by_name(self, tls: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: Any) -> None:
        """For `SSLContext.sni_callback`: the name that is asked for chooses the certificate."""
        if name == SERVER_NAME:
            tls.context = self._tls

    def __call__(self) -> asyncio.Protocol:
        return _Arrival(self._protocol)

    def _protocol(self, transport: asyncio.BaseTransport) -> asyncio.BaseProtocol:
        tls = transport.get_extra_info("ssl_object")
        return _Caller(self) if tls.context is self._tls else self._kubelet()


class _Arrival(asyncio.Protocol):
    """Hands a new connection to whom it is for."""

    def __init__(self, choose: Callable[[asyncio.BaseTransport], asyncio.BaseProtocol]) -> None:
        self._choose = choose

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        protocol = self._choose(transport)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


class Refused(Exception):
    """The caller does not get to a Pod; the status says why."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class _End(asyncio.Protocol):
    """One of two joined connections: what comes in goes out at the other, at the other's pace."""

    other: _End | None = None
    transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            with suppress(RuntimeError):  # it was closed meanwhile
                self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            # A cut must look like a cut at the other end too, an end like an end.
            self.other.transport.abort() if exc else self.other.transport.close()


class _Caller(_End):
    """A gateway's connection: says which Pod it wants, and then has it."""

    def __init__(self, port: PodPort) -> None:
        self._port = port
        self._head: bytearray | None = bytearray()
        self._loop = asyncio.get_running_loop()
        self._work: asyncio.Task[None] | None = None
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._port.connections += 1
        self._late = self._loop.call_later(KNOCK_SECONDS, transport.close)

    def data_received(self, data: bytes) -> None:
        if self._head is None:
            super().data_received(data)
            return
        self._head += data
        if self._work is None and b"\r\n\r\n" in self._head:
            self._work = self._loop.create_task(self._answer(bytes(self._head)))
        elif len(self._head) > MAX_KNOCK_BYTES and self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._port.connections -= 1
        if self._late is not None:
            self._late.cancel()
        if self._work is not None:
            self._work.cancel()
        super().connection_lost(exc)

    async def _answer(self, head: bytes) -> None:
        assert self.transport is not None
        try:
            await self._join(head)
        except Refused as refused:
            log.warning("pods.refused", status=refused.status, why=str(refused))
            phrase = http.client.responses[refused.status]
            self.transport.write(
                f"HTTP/1.1 {refused.status} {phrase}\r\nconnection: close\r\n"
                "content-length: 0\r\n\r\n".encode()
            )
            self.transport.close()

    async def _join(self, head: bytes) -> None:
        """Raises Refused."""
        assert self.transport is not None and self._late is not None
        if self._port.connections > MAX_CONNECTIONS:
            raise Refused(503, f"more than {MAX_CONNECTIONS} connections to Pods")
        worker, number = _wanted(self._port.pods, head)
        inner = _End()
        inner.other = self
        try:
            await self._loop.create_connection(lambda: inner, LOOPBACK, number)
        except OSError as error:
            name = worker.pod["metadata"]["name"]
            raise Refused(503, f"Pod {name} does not listen: {error}") from error
        self._late.cancel()
        self.other, self._head = inner, None
        self.transport.write(
            f"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n"
            f"upgrade: {PROTOCOL}\r\n\r\n".encode()
        )


def _wanted(pods: PodManager, head: bytes) -> tuple[PodWorker, int]:
    """The Pod that a caller asks for and may have, and its port. Raises Refused."""
    line, _, rest = head.partition(b"\r\n")
    words = line.decode("latin-1").split(" ")
    headers = http.client.parse_headers(io.BytesIO(rest))
    asks = len(words) == 3 and words[0] == "GET" and headers.get("upgrade") == PROTOCOL
    if not asks or not head.endswith(b"\r\n\r\n"):
        raise Refused(400, "no request for a Pod")
    worker = pods.by_uid(words[1].removeprefix("/pods/"))
    kind, _, token = headers.get("authorization", "").partition(" ")
    # Who may not come in is not told which Pods there are.
    if worker is None or kind != "Bearer" or not _known(worker, token):
        raise Refused(401, f"no valid token for {words[1]}")
    number = worker.serving_port
    if number is None:
        raise Refused(503, f"Pod {worker.pod['metadata']['name']} has no port yet")
    return worker, number


def _known(worker: PodWorker, token: str) -> bool:
    """Whether the Pod's own configuration trusts who signed the token."""
    file = worker.pod_dir.root / SERVER_CONFIG_FILE.lstrip("/")
    try:
        auth = serverconfig.load(file.read_text()).auth
        keys = {key.kid: key.pem for key in auth.public_keys}
        Verifier(keys, auth.audience).verify(token, time.time())
    except (OSError, ValueError, Unauthenticated):
        return False
    return True
