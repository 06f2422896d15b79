"""Loopback ports of native containers, and the URL by which the gateway reaches the Pod."""

from __future__ import annotations

import contextlib
import errno
import random
import socket
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from pippin_contract import wire
from pippin_contract.endpoint import Endpoint, through_node

from .records import Json

#: Container name -> port name -> the port on this machine.
PodPorts = dict[str, dict[str, int]]


class NoPort(Exception):
    """No port to be had."""


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as every server does
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
        return True


def pick(host: str, first: int, last: int, taken: Collection[int]) -> int:
    """A free port of the range that no Pod of ours holds. Raises NoPort.

    The range lies below the ephemeral ports, so that no outgoing connection takes it meanwhile.
    """
    size = last - first + 1
    start = random.randrange(size)
    for step in range(size):
        port = first + (start + step) % size
        if port not in taken and is_free(host, port):
            return port
    raise NoPort(f"no free port between {first} and {last}")


LOOPBACK = "127.0.0.1"


def bind_host(container: Json, host_address: str) -> str:
    """Loopback, but for a container that asks for a port of the host."""
    asks = any(port.get("hostPort") for port in container.get("ports", []))
    return host_address if asks else LOOPBACK


def assign(
    container: Json, known: Mapping[str, int], host: str, pick_port: Callable[[], int]
) -> dict[str, int]:
    """Port name -> port: a hostPort as given, a known port if it is free still, else a new one."""
    chosen: dict[str, int] = {}
    for port in container.get("ports", []):
        old = known.get(port["name"])
        if port.get("hostPort"):
            chosen[port["name"]] = port["hostPort"]
        elif old is not None and is_free(host, old):
            chosen[port["name"]] = old
        else:
            chosen[port["name"]] = pick_port()
    return chosen


@dataclass(frozen=True)
class Door:
    """The node's TLS port, through which Pods are reached from other machines."""

    host: str
    port: int
    pin: str


class PortBook:
    """Which Pod holds which ports of this machine."""

    def __init__(self, first: int, last: int) -> None:
        #: None while only this machine reaches Pods. Set once, before there are any.
        self.door: Door | None = None
        self._range = (first, last)
        self._held: dict[str, PodPorts] = {}

    def of(self, uid: str) -> PodPorts:
        """The Pod's ports; the dictionary is the book's own, to be filled by the caller."""
        return self._held.setdefault(uid, {})

    def pick(self, host: str) -> int:
        """A free port that no Pod holds. Raises NoPort."""
        taken = {
            port
            for pod in self._held.values()
            for container in pod.values()
            for port in container.values()
        }
        return pick(host, *self._range, taken)

    def release(self, uid: str) -> None:
        self._held.pop(uid, None)


def serving(pod: Json, ports: PodPorts) -> tuple[Json, int] | None:
    """The container and the number of the port named http, else of the first one."""
    first: tuple[Json, int] | None = None
    for container in pod["spec"]["containers"]:
        for port in container.get("ports", []):
            number = ports.get(container["name"], {}).get(port["name"])
            if number is None:
                continue
            if port["name"] == wire.HTTP_PORT_NAME:
                return container, number
            first = first or (container, number)
    return first


def endpoint(pod: Json, book: PortBook, host_address: str) -> str | None:
    """The URL by which the gateway reaches the Pod; None when it has no port.

    `http://127.0.0.1:PORT`, or through the door when there is one; a hostPort is open by itself.
    """
    uid = pod["metadata"]["uid"]
    found = serving(pod, book.of(uid))
    if found is None:
        return None
    container, number = found
    host = bind_host(container, host_address)
    if book.door is not None and host == LOOPBACK:
        return through_node(book.door.host, book.door.port, uid, book.door.pin).url
    return Endpoint(host, number).url
