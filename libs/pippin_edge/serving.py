"""An ASGI app on a socket: accepted, served, and ended without losing a request."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass

from .asgi import App
from .protocol import WRITE_STALL_SECONDS, House, Protocol

#: Longer than the 60 s of common ingresses, so that they, not we, close idle connections.
KEEP_ALIVE_SECONDS = 75
#: Seconds between two looks for idle connections, and between two looks at who is left at the end.
SWEEP_SECONDS, LOOK_SECONDS = 5.0, 0.05
#: Seconds for the last words to those whom the end of the drain cut.
LAST_SECONDS = 1.0

BACKLOG = 4096


@dataclass(frozen=True, slots=True)
class Drain:
    """How a server ends. Seconds.

    `linger`: after `on_draining`, go on accepting so long, until everyone has seen "not ready".
    `timeout`: then wait so long for what runs, before it is cut.
    """

    linger: float = 1.0
    timeout: float = 60.0
    on_draining: Callable[[], object] = lambda: None


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises OSError when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; accepted sockets inherit it
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, WRITE_STALL_SECONDS * 1000)
    return listener


def stop_on_signals(stop: asyncio.Event) -> None:
    """SIGTERM and SIGINT set `stop`."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


async def serve(app: App, listener: socket.socket, stop: asyncio.Event, drain: Drain) -> None:
    """Serve until `stop` is set, then drain. The listener is closed at the end."""
    house = House(app)
    server = await house.loop.create_server(lambda: Protocol(house), sock=listener, backlog=BACKLOG)
    sweeping = asyncio.create_task(_sweep(house))
    try:
        await stop.wait()
        drain.on_draining()
        await asyncio.sleep(drain.linger)
    finally:
        sweeping.cancel()
        server.close()
        listener.close()
        await _end(house, drain.timeout)


async def _sweep(house: House) -> None:
    """Close what is idle. (A timer of its own for every answer costs more than the look.)"""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        horizon = house.loop.time() - KEEP_ALIVE_SECONDS
        for connection in list(house.connections):
            if 0 < connection.idle_since < horizon:
                connection.transport.close()


async def _end(house: House, within: float) -> None:
    """Wait for what runs, then cut it: each cancelled request may still say why."""
    for connection in list(house.connections):
        connection.leave()
    if not await _gone(house, within):
        for cycle in list(house.running):
            if cycle.task is not None:
                cycle.task.cancel()
        await _gone(house, LAST_SECONDS)
    for connection in list(house.connections):
        connection.transport.abort()


async def _gone(house: House, within: float) -> bool:
    """Whether nobody is left, after so many seconds at most."""
    until = house.loop.time() + within
    while house.connections or house.running:
        if house.loop.time() >= until:
            return False
        await asyncio.sleep(LOOK_SECONDS)
    return True
