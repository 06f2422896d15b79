"""Startup, readiness and liveness probes: one task each, the kubelet's timing and words."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from pippin_contract import __version__

from .records import Json

#: Of an HTTP answer's head, bytes.
HEAD_LIMIT = 65536


#: A timeout that fires this much too late says more of the agent than of the container.
LATE_SECONDS = 0.25
#: First pause between uncounted looks at a container that has not answered yet, seconds.
EAGER_SECONDS = 0.1


class Kind(Enum):
    STARTUP = "Startup"
    READINESS = "Readiness"
    LIVENESS = "Liveness"

    @property
    def field(self) -> str:
        return f"{self.value.lower()}Probe"


@dataclass(frozen=True)
class Probe:
    """One probe of a container, with the API's defaults. Times in seconds."""

    kind: Kind
    action: Json
    initial_delay: float
    period: float
    timeout: float
    success: int
    failure: int
    grace: int | None

    @classmethod
    def of(cls, container: Json, kind: Kind) -> Probe | None:
        spec = container.get(kind.field)
        if not spec:
            return None
        return cls(
            kind=kind,
            action=spec,
            initial_delay=spec.get("initialDelaySeconds", 0),
            period=spec.get("periodSeconds", 10),
            timeout=spec.get("timeoutSeconds", 1),
            success=spec.get("successThreshold", 1),
            failure=spec.get("failureThreshold", 3),
            grace=spec.get("terminationGracePeriodSeconds"),
        )


@dataclass
class Streak:
    """Counts answers of one sort in a row; says a new verdict when the threshold is reached."""

    success: int
    failure: int
    verdict: bool | None = None
    _last: bool | None = None
    _run: int = 0

    def observe(self, passed: bool) -> bool:
        """Whether this answer changed the verdict."""
        self._run = self._run + 1 if passed == self._last else 1
        self._last = passed
        if self._run < (self.success if passed else self.failure):
            return False
        changed = self.verdict != passed
        self.verdict = passed
        return changed


@dataclass(frozen=True)
class Target:
    """Where a container answers, and how to run its exec probes."""

    host: str
    ports: Mapping[str | int, int]
    execute: Callable[[list[str]], Awaitable[tuple[int, str]]]


async def attempt(probe: Probe, target: Target) -> str | None:
    """One try: None when it passed, else the words for the event.

    When it was the agent that came late (a busy machine, a laptop that slept), nothing is known of
    the container, and it is asked again.
    """
    began = time.monotonic()
    words = await _attempt(probe, target)
    if words is not None and time.monotonic() - began > probe.timeout + LATE_SECONDS:
        return await _attempt(probe, target)
    return words


async def _attempt(probe: Probe, target: Target) -> str | None:
    try:
        async with asyncio.timeout(probe.timeout):
            if "httpGet" in probe.action:
                return await _http(probe.action["httpGet"], target)
            if "tcpSocket" in probe.action:
                return await _tcp(target.host, target.ports[probe.action["tcpSocket"]["port"]])
            code, output = await target.execute(probe.action["exec"]["command"])
            return None if code == 0 else (output.strip() or f"command exited with code {code}")
    except TimeoutError:
        return f"probe timed out after {probe.timeout:g}s"


async def _tcp(host: str, port: int) -> str | None:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        return f"dial tcp {host}:{port}: {_words(error)}"
    await _close(writer)
    return None


async def _http(action: Json, target: Target) -> str | None:
    """Plain HTTP/1.1 by hand: a hundred Pods probe twenty times a second for ever."""
    port = target.ports[action["port"]]
    scheme, path = action.get("scheme", "HTTP").lower(), action.get("path") or "/"
    url = f"{scheme}://{target.host}:{port}{path}"
    headers = {"Host": f"{target.host}:{port}", "User-Agent": f"kube-probe/{__version__}"}
    headers |= {"Accept": "*/*", "Connection": "close"}
    headers |= {header["name"]: header["value"] for header in action.get("httpHeaders", [])}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    request = "\r\n".join([*lines, "", ""]).encode()
    try:
        status = await _status(target.host, port, request, _tls() if scheme == "https" else None)
    except (OSError, ValueError, asyncio.IncompleteReadError) as error:
        return f'Get "{url}": {_words(error)}'
    if 200 <= status < 400:
        return None
    return f"HTTP probe failed with statuscode: {status}"


async def _status(host: str, port: int, request: bytes, tls: ssl.SSLContext | None) -> int:
    if tls is None:
        return _parse_status(await _first_line(host, port, request))
    reader, writer = await asyncio.open_connection(host, port, ssl=tls, limit=HEAD_LIMIT)
    try:
        writer.write(request)
        return _parse_status(await reader.readuntil(b"\r\n"))
    finally:
        await _close(writer)


async def _first_line(host: str, port: int, request: bytes) -> bytes:
    """Half the work of a stream, and this is nearly all that an idle node does."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as connection:
        connection.setblocking(False)
        await loop.sock_connect(connection, (host, port))
        await loop.sock_sendall(connection, request)
        line = b""
        while b"\r\n" not in line and len(line) < HEAD_LIMIT:
            more = await loop.sock_recv(connection, 4096)
            if not more:
                break
            line += more
        return line


def _parse_status(line: bytes) -> int:
    parts = line.split(b" ", 2)
    if len(parts) < 2 or not line.startswith(b"HTTP/"):
        raise ValueError("malformed HTTP response" if line else "EOF")
    return int(parts[1][:3])


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()  # what else it has to say is of no interest
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _tls() -> ssl.SSLContext:
    """Probes do not verify certificates: they reach the Pod by its address."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _words(error: BaseException) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connect: connection refused"
    return str(error) or type(error).__name__


class Prober:
    """Probes one running container. `told` is called on each failure; `changed` on new verdicts."""

    def __init__(
        self,
        container: Json,
        target: Target,
        *,
        told: Callable[[Kind, str], None],
        changed: Callable[[], None],
    ) -> None:
        self._probes = {kind: Probe.of(container, kind) for kind in Kind}
        self._target = target
        self._told = told
        self._changed = changed
        self._tasks: dict[Kind, asyncio.Task[None]] = {}
        self._began = time.monotonic()
        self._up = asyncio.Event()
        self.ready = False
        #: The probe whose verdict is that the container must be restarted.
        self.failed: Probe | None = None

    @property
    def started(self) -> bool:
        return self._up.is_set()

    def begin(self, ran: float = 0, *, started: bool = False, ready: bool = False) -> None:
        """Start; for an adopted container with what was known of it, and unhurried."""
        self._began = time.monotonic() - ran
        if started or self._probes[Kind.STARTUP] is None:
            self._up.set()
        self.ready = ready or (self.started and self._probes[Kind.READINESS] is None)
        for kind, probe in self._probes.items():
            if probe is not None and not (kind is Kind.STARTUP and self.started):
                pause = random.uniform(0, probe.period) if started else 0.0
                self._tasks[kind] = asyncio.create_task(self._run(probe, pause, ready))

    def stop(self, *kinds: Kind) -> None:
        """Stop these probes, or all."""
        for kind in kinds or tuple(Kind):
            task = self._tasks.pop(kind, None)
            if task is not None:
                task.cancel()

    async def _run(self, probe: Probe, pause: float, ready: bool) -> None:
        streak = Streak(probe.success, probe.failure)
        if probe.kind is Kind.READINESS and ready:
            streak.verdict = True
        if probe.kind is not Kind.STARTUP:
            await self._up.wait()
        await asyncio.sleep(max(pause, probe.initial_delay - (time.monotonic() - self._began)))
        while True:
            words = await attempt(probe, self._target)
            if words is not None:
                self._told(probe.kind, words)
            if streak.observe(words is None):
                self._judge(probe, words is None)
                if probe.kind is Kind.STARTUP or self.failed is not None:
                    return
            if probe.kind is Kind.LIVENESS or streak.verdict is not None:
                await asyncio.sleep(probe.period)
            else:
                await self._wait_eagerly(probe)

    async def _wait_eagerly(self, probe: Probe) -> None:
        """One period, cut short as soon as a container on its way up answers.

        Looks in between are not counted, so the budget of a startup probe stays what it says.
        """
        until, pause = time.monotonic() + probe.period, EAGER_SECONDS
        while (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 2, 1.0)
            if left > pause and await attempt(probe, self._target) is None:
                return

    def _judge(self, probe: Probe, passed: bool) -> None:
        if probe.kind is Kind.READINESS:
            self.ready = passed
        elif not passed:
            self.failed = probe
        elif probe.kind is Kind.STARTUP:
            self._up.set()
            self.ready = self._probes[Kind.READINESS] is None
        else:
            return
        self._changed()
