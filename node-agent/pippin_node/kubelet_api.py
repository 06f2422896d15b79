"""The node's TLS port: container logs, health and metrics, for the API server and for who may.

The API server calls it for `kubectl logs`; the paths, the answers and the words are the kubelet's.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from . import logs
from .access import Access, User, from_certificate
from .client import ApiError, Unreachable
from .container import Container
from .context import Context, parse_time
from .logs import Line
from .podport import PodPort
from .pods import PodManager
from .ports import LOOPBACK, Door

#: The TLS port of a node that other machines reach, unless the settings name one.
NODE_PORT = 10260
#: Who connects and says nothing is gone after that.
HANDSHAKE_SECONDS = 10.0
#: How often a followed log is looked at, seconds; only while somebody follows.
FOLLOW_SECONDS = 0.2
#: Bytes sent at once.
BATCH = 65536

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class BadQuery(Exception):
    """The request cannot be understood; answered with 400."""


class KubeletApi:
    """Serves on the node's TLS port; `serve_with` swaps the certificate for new connections."""

    def __init__(self, context: Context, pods: PodManager, access: Access, ca: bytes) -> None:
        self._context = context
        self._pods = pods
        self._access = access
        self._registry = CollectorRegistry()
        self._registry.register(_Figures(context, pods))
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._pod_port = PodPort(pods, context.settings.root, context.node, self._kubelet)
        self._tls.sni_callback = self._pod_port.by_name
        if ca:
            self._tls.load_verify_locations(cadata=ca.decode())
            self._tls.verify_mode = ssl.CERT_OPTIONAL
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        app.router.add_route("*", "/{what:exec|attach|portForward|run}/{rest:.*}", self._unable)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        self._listener: asyncio.Server | None = None
        self.port = 0

    def serve_with(self, bundle: bytes) -> None:
        """Use this certificate and key (one PEM) from the next connection on."""
        with tempfile.NamedTemporaryFile(
            prefix="serving-", dir=self._context.settings.root
        ) as file:
            file.write(bundle)
            file.flush()
            self._tls.load_cert_chain(file.name)

    async def start(self) -> None:
        """Listen; `port` then says where. Raises OSError when a given port is taken."""
        settings = self._context.settings
        await self._runner.setup()
        near = settings.host_address == LOOPBACK
        self._listener = await asyncio.get_running_loop().create_server(
            self._pod_port,
            settings.host_address,
            settings.kubelet_port or (0 if near else NODE_PORT),
            ssl=self._tls,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
        )
        self.port = self._listener.sockets[0].getsockname()[1]
        if not near:
            door = Door(settings.host_address, self.port, self._pod_port.pin)
            self._context.ports.door = door

    async def stop(self) -> None:
        if self._listener is not None:
            self._listener.close()
        await self._runner.cleanup()

    def _kubelet(self) -> asyncio.BaseProtocol:
        """For a connection that is not to a Pod."""
        assert self._runner.server is not None
        return self._runner.server()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Nobody gets by unknown or without the right."""
        try:
            user = await self._user(request)
            if user is None:
                return web.Response(status=401, text="Unauthorized")
            if not await self._access.allowed(user, request.method, request.path):
                words = f"Forbidden (user={user.name}, resource=nodes)"
                return web.Response(status=403, text=words)
        except (ApiError, Unreachable) as error:
            return web.Response(status=503, text=f"cannot ask the API server: {error}")
        try:
            return await handler(request)
        except BadQuery as error:
            return web.Response(status=400, text=str(error))

    async def _user(self, request: web.Request) -> User | None:
        transport = request.transport
        certificate = transport.get_extra_info("peercert") if transport else None
        user = from_certificate(certificate)
        if user is not None:
            return user
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token:
            return None
        return await self._access.authenticate(token.strip())

    async def _unable(self, request: web.Request) -> web.StreamResponse:
        """No shell into a machine that is somebody's Mac."""
        words = f"{request.match_info['what']} is not supported on a native node"
        return web.Response(status=501, text=words)

    async def _healthz(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text="ok")

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        text = generate_latest(self._registry)
        return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        where = request.match_info
        worker = self._pods.find(where["namespace"], where["pod"])
        if worker is None:
            return web.Response(status=404, text=f'pod "{where["pod"]}" not found')
        for container in worker.containers:
            if container.name == where["container"]:
                break
        else:
            words = f'container "{where["container"]}" not found in pod "{where["pod"]}"'
            return web.Response(status=404, text=words)
        query = LogQuery(request, self._context.now())
        return await _send_logs(request, _log_of(container, where["pod"], query), query, container)


class LogQuery:
    """What the caller wants of a log. Raises BadQuery."""

    def __init__(self, request: web.Request, now: datetime) -> None:
        self._values = request.query
        self.follow = self._flag("follow")
        self.previous = self._flag("previous")
        self.timestamps = self._flag("timestamps")
        self.tail = self._count("tailLines")
        self.limit = self._count("limitBytes")
        self.stream = self._values.get("stream", "All").lower()
        seconds = self._count("sinceSeconds")
        self.since: str = self._values.get("sinceTime", "")
        if seconds is not None:
            self.since = (now - timedelta(seconds=seconds)).isoformat()[:26] + "Z"
        elif self.since:
            try:
                self.since = parse_time(self.since).isoformat()[:26].partition("+")[0] + "Z"
            except ValueError as error:
                raise BadQuery(f"invalid sinceTime: {self.since!r}") from error

    def wants(self, line: Line) -> bool:
        return line.time >= self.since and self.stream in ("all", line.stream)

    def _flag(self, name: str) -> bool:
        return self._values.get(name, "").lower() in ("true", "1")

    def _count(self, name: str) -> int | None:
        text = self._values.get(name)
        if text is None:
            return None
        if not text.isdecimal():
            raise BadQuery(f"invalid {name}: {text!r}")
        return int(text)


def _log_of(container: Container, pod: str, query: LogQuery) -> Path:
    numbers = container.owner.pod_dir.attempts(container.name)
    if query.previous:
        if len(numbers) < 2 and not (numbers and not container.running):
            words = f'previous terminated container "{container.name}" in pod "{pod}" not found'
            raise BadQuery(words)
        number = numbers[-1] if not container.running else numbers[-2]
    elif not numbers:
        reason, message = container.waiting or ("ContainerCreating", "")
        words = f'container "{container.name}" in pod "{pod}" is waiting to start: '
        raise BadQuery(words + (message or reason))
    else:
        number = numbers[-1]
    return container.owner.pod_dir.attempt(container.name, number) / "log"


async def _send_logs(
    request: web.Request, log: Path, query: LogQuery, container: Container
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    sender = _Sender(response, query)
    with contextlib.suppress(ConnectionError, FileNotFoundError), logs.Reader(log) as reader:
        await sender.send(reader.history() if query.tail is None else reader.tail(query.tail))
        if query.follow:
            await _follow(reader, sender, container, log)
    with contextlib.suppress(ConnectionError):
        await response.write_eof()
    return response


async def _follow(reader: logs.Reader, sender: _Sender, container: Container, log: Path) -> None:
    """Send what is written from now on, until the attempt ends."""
    while not sender.full:
        process = container.process
        over = process is None or process.exit is not None or process.log != log
        await sender.send(reader.more())
        if over:
            return
        await asyncio.sleep(FOLLOW_SECONDS)


class _Sender:
    """Writes lines in batches, up to the limit."""

    def __init__(self, response: web.StreamResponse, query: LogQuery) -> None:
        self._response = response
        self._query = query
        self._left = query.limit

    @property
    def full(self) -> bool:
        return self._left is not None and self._left <= 0

    async def send(self, lines: Iterable[Line]) -> None:
        batch = bytearray()
        for line in lines:
            if self.full:
                break
            if self._query.wants(line):
                batch += self._cut(line.render(self._query.timestamps))
            if len(batch) >= BATCH:
                await self._response.write(bytes(batch))
                batch.clear()
        if batch:
            await self._response.write(bytes(batch))

    def _cut(self, data: bytes) -> bytes:
        if self._left is None:
            return data
        data = data[: self._left]
        self._left -= len(data)
        return data


class _Figures(Collector):
    """What the node says of itself to Prometheus."""

    def __init__(self, context: Context, pods: PodManager) -> None:
        self._context = context
        self._pods = pods

    def collect(self) -> Iterable[Metric]:
        running = restarts = 0
        for container in self._pods.containers():
            running += container.running
            restarts += max(container.attempt, 0)
        budget = float(self._context.facts["memory"])
        figures = {
            "pippin_node_pods": ("Pods on this node.", len(self._pods.pods())),
            "pippin_node_containers_running": ("Containers that run now.", running),
            "pippin_node_container_restarts": ("Restarts of the Pods here now.", restarts),
            "pippin_node_memory_budget_bytes": ("Memory that Pods may ask for.", budget),
        }
        for name, (words, value) in figures.items():
            yield GaugeMetricFamily(name, words, value=value)
