"""The cluster as events: lists and watches that feed the CatalogStore and the ProviderKeys, for
ever.

The only importer of a Kubernetes client. lightkube reads kubeconfigs and service accounts and
logs in (tokens from files are read again when they are refused); the objects stay plain JSON,
because typed models of Pods cost more memory than the rest of the gateway.

A watch ends when the server ends it, when nothing was heard for long (bookmarks come every
minute), or when the peer no longer acknowledges. It goes on where it was, and starts over with a
list only when the server says that its version is gone.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx2
import orjson
import structlog
from lightkube.config.client_adapter import user_auth, verify_cluster
from lightkube.config.kubeconfig import DEFAULT_KUBECONFIG, KubeConfig, SingleConfig
from lightkube.config.models import User
from lightkube.core.exceptions import ConfigError

from pippin_contract.wire import (
    APIKEYS,
    GROUP,
    MODELDEPLOYMENTS,
    PROVIDERS_SECRET,
    SERVER_POD_SELECTOR,
    VERSION,
)

from .credentials import ProviderKeys
from .kinds import Kind
from .objects import Raw
from .store import CatalogStore

PAGE = 250
#: Seconds. The server ends a watch after about this time; ours ends it when nothing came.
WATCH_SECONDS = 300
SILENCE_SECONDS = 90.0
ANSWER_SECONDS = 15.0
#: Seconds between two tries, growing from the first to the last.
FIRST_PAUSE, LAST_PAUSE = 0.2, 3.0
#: Seconds after which the end of a watch is nothing unusual.
LASTED = 5.0

_CUSTOM = f"/apis/{GROUP}/{VERSION}"
_PATHS: dict[Kind, tuple[str, dict[str, str]]] = {
    "apikeys": (f"{_CUSTOM}/{APIKEYS}", {}),
    "modeldeployments": (f"{_CUSTOM}/{MODELDEPLOYMENTS}", {}),
    "pods": ("/api/v1/pods", {"labelSelector": SERVER_POD_SELECTOR}),
}

log = structlog.get_logger("pippin.watch")


class Gone(Exception):
    """The version from which to watch is no longer known: list again."""


class Refused(Exception):
    """The API server answered with an error."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the API server is and who we are."""

    config: SingleConfig

    @staticmethod
    def load(kubeconfig: Path | None) -> Cluster:
        """From a file, else the Pod's service account, else ~/.kube/config. Raises ValueError."""
        try:
            if kubeconfig is not None:
                found = KubeConfig.from_file(kubeconfig)
            else:
                found = KubeConfig.from_env(default_config=DEFAULT_KUBECONFIG)
            config = found.get()
        except (ConfigError, KeyError, TypeError) as error:
            raise ValueError(f"no usable access to the cluster: {error}") from error
        if config is None:
            raise ValueError("no usable access to the cluster: the kubeconfig has no context")
        return Cluster(config)

    @property
    def spot(self) -> tuple[str, int]:
        """Host and port of the API server."""
        url = httpx2.URL(self.config.cluster.server)
        return url.host, url.port or 443

    def client(self) -> httpx2.AsyncClient:
        """Notices within half a minute when the peer's machine is gone."""
        config = self.config
        tls = verify_cluster(config.cluster, config.user or User(), config.abs_file)
        transport = httpx2.AsyncHTTPTransport(verify=tls, socket_options=_keep_alive())
        return httpx2.AsyncClient(
            base_url=config.cluster.server,
            transport=transport,
            auth=user_auth(config.user),
            timeout=httpx2.Timeout(ANSWER_SECONDS),
            trust_env=False,
        )


def _keep_alive() -> list[tuple[int, int, int]]:
    idle = getattr(socket, "TCP_KEEPIDLE", None) or getattr(socket, "TCP_KEEPALIVE", None)
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    if idle is not None:
        options.append((socket.IPPROTO_TCP, idle, 10))
    options.append((socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5))
    options.append((socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3))
    return options


async def watch_all(
    cluster: Cluster, store: CatalogStore, keys: ProviderKeys, namespace: str
) -> None:
    """Follow every kind, and the one Secret in Pippin's own namespace, until cancelled."""
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it tells of every request
    one = {"fieldSelector": f"metadata.name={PROVIDERS_SECRET}"}
    secret = f"/api/v1/namespaces/{namespace}/secrets"
    async with cluster.client() as client, asyncio.TaskGroup() as group:
        for kind in _PATHS:
            group.create_task(of_kind(client, store, kind).run())
        group.create_task(Watch(client, keys, secret, one).run())


def of_kind(client: httpx2.AsyncClient, store: CatalogStore, kind: Kind) -> Watch:
    """Feeds the store."""
    return Watch(client, _OfKind(store, kind), *_PATHS[kind])


class Sink(Protocol):
    """Who is told what is there."""

    def replace(self, objects: Iterable[Raw]) -> None: ...

    def put(self, raw: Raw) -> None: ...

    def remove(self, raw: Raw) -> None: ...

    def connected(self) -> None: ...

    def disconnected(self, why: str) -> None: ...


class _OfKind:
    """The store, told of one kind."""

    def __init__(self, store: CatalogStore, kind: Kind) -> None:
        self._store = store
        self._kind = kind

    def replace(self, objects: Iterable[Raw]) -> None:
        self._store.replace(self._kind, objects)

    def put(self, raw: Raw) -> None:
        self._store.put(self._kind, raw)

    def remove(self, raw: Raw) -> None:
        self._store.remove(self._kind, raw)

    def connected(self) -> None:
        self._store.connected(self._kind)

    def disconnected(self, why: str) -> None:
        self._store.disconnected(self._kind, why)


class Watch:
    """One kind, followed for ever."""

    def __init__(
        self, client: httpx2.AsyncClient, sink: Sink, path: str, params: Mapping[str, str]
    ) -> None:
        self._client = client
        self._sink = sink
        self._path, self._params = path, params
        self._version = ""
        self._pause = FIRST_PAUSE

    async def run(self) -> None:
        """List once, watch on; survive everything that the network and the server can do."""
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch_once()
            except Gone:
                log.info("watch.listing_again", path=self._path)
                self._version = ""
            except (httpx2.HTTPError, OSError, Refused, orjson.JSONDecodeError) as error:
                self._sink.disconnected(_words(error))
                await asyncio.sleep(self._pause * random.uniform(0.5, 1))
                self._pause = min(self._pause * 2, LAST_PAUSE)

    async def _list(self) -> None:
        objects: list[dict[str, Any]] = []
        params = {**self._params, "limit": str(PAGE)}
        while True:
            response = await self._client.get(self._path, params=params)
            _check(response.status_code, response.content)
            page = orjson.loads(response.content)
            objects += page["items"]
            more = page["metadata"].get("continue")
            if not more:
                break
            params["continue"] = more
        self._sink.replace(objects)
        self._version = page["metadata"]["resourceVersion"]

    async def _watch_once(self) -> None:
        """Goes on at once after one that lasted: what happens between two is known late."""
        began = asyncio.get_running_loop().time()
        await self._watch()
        if asyncio.get_running_loop().time() - began < LASTED:
            await asyncio.sleep(FIRST_PAUSE * random.uniform(0.5, 1))

    async def _watch(self) -> None:
        """From the last version seen until the connection ends."""
        params = {
            **self._params,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(random.randint(WATCH_SECONDS * 3 // 4, WATCH_SECONDS)),
        }
        timeout = httpx2.Timeout(ANSWER_SECONDS, read=SILENCE_SECONDS)
        async with self._client.stream("GET", self._path, params=params, timeout=timeout) as got:
            if got.status_code != 200:
                _check(got.status_code, await got.aread())
            self._sink.connected()
            self._pause = FIRST_PAUSE
            async for line in _lines(got):
                self._event(orjson.loads(line))

    def _event(self, event: dict[str, Any]) -> None:
        what, raw = event["type"], event["object"]
        if what == "ERROR":
            _check(int(raw.get("code") or 500), orjson.dumps(raw))
        if what == "DELETED":
            self._sink.remove(raw)
        elif what != "BOOKMARK":
            self._sink.put(raw)
        self._version = raw["metadata"]["resourceVersion"]


async def _lines(response: httpx2.Response) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in response.aiter_bytes():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line:
                yield line


def _check(status: int, body: bytes) -> None:
    """Raises Gone or Refused unless the status is 200."""
    if status == 410:
        raise Gone
    if status != 200:
        try:
            message = orjson.loads(body).get("message", "")
        except (orjson.JSONDecodeError, AttributeError):
            message = ""
        raise Refused(f"{status} {message}".strip())


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
