"""A gateway in the test's own event loop, on a real socket, with a catalog made by hand."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pippin_contract import addresses, apikeys, wire
from pippin_contract.gatewayconfig import GatewayConfig
from pippin_edge.clock import SYSTEM, Clock
from pippin_edge.limits.memory import MemoryStore
from pippin_edge.serving import Drain, bind, serve
from pippin_gateway.admin import AdminToken
from pippin_gateway.app import Gateway, Parts, create_app
from pippin_gateway.cache import ResponseCache
from pippin_gateway.catalog.credentials import ProviderKeys
from pippin_gateway.catalog.model import Catalog
from pippin_gateway.catalog.store import CatalogStore
from pippin_gateway.ledger.ledger import LocalLedger
from pippin_gateway.limiting.shared import LocalStore
from pippin_gateway.routing.balance import Balance
from pippin_gateway.routing.breaker import Breakers
from pippin_gateway.signing import SigningKey
from pippin_gateway.telemetry import Telemetry
from pippin_gateway.tracing.exporter import Exporter
from pippin_gateway.upstream.outside import Outside
from pippin_gateway.upstream.pool import Pool
from pippin_gateway.waiting import Waiting

NAMESPACE = "team-a"


def new_key() -> apikeys.MintedKey:
    return apikeys.mint(secrets.token_bytes)


def key_object(minted: apikeys.MintedKey | None, name: str = "app", **over: Any) -> dict[str, Any]:
    """An APIKey as the operator leaves it; keywords go into the spec."""
    rows = [{"id": minted.key_id, "digest": minted.digest}] if minted else []
    namespace = over.pop("namespace", NAMESPACE)
    return {
        "apiVersion": wire.API_VERSION,
        "kind": "APIKey",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"models": ["*"], **over},
        "status": {"keys": rows},
    }


def model_object(name: str = "qwen", namespace: str = NAMESPACE, **spec: Any) -> dict[str, Any]:
    """A ModelDeployment; keywords go into the spec."""
    created = "2026-01-01T00:00:00Z"
    return {
        "apiVersion": wire.API_VERSION,
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created},
        "spec": {"replicas": 1, **spec},
        "status": {},
    }


def pod_object(
    name: str,
    port: int,
    model: str = "qwen",
    *,
    ready: bool = True,
    deleting: bool = False,
) -> dict[str, Any]:
    """A server Pod on a native node."""
    namespace = NAMESPACE
    metadata = {
        "name": name,
        "namespace": namespace,
        "uid": f"uid-{name}",
        "labels": {
            wire.LABEL_NAME: wire.SERVER_APP,
            wire.LABEL_INSTANCE: model,
            wire.LABEL_MANAGED_BY: wire.MANAGER,
        },
    }
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    endpoint = {"type": wire.ENDPOINT_CONDITION, "status": "True"}
    return {
        "metadata": metadata,
        "spec": {"containers": [{"name": "server"}]},
        "status": {
            "conditions": [
                {"type": "Ready", "status": "True" if ready else "False"},
                {**endpoint, "message": f"http://127.0.0.1:{port}"},
            ]
        },
    }


@dataclass
class Running:
    """A gateway that serves, and what a test needs of its inside."""

    port: int
    store: CatalogStore
    gateway: Gateway
    pool: Pool
    telemetry: Telemetry
    stop: asyncio.Event
    key: apikeys.MintedKey
    provider_keys: ProviderKeys
    log: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, key: str | None = None, **more: Any) -> httpx.AsyncClient:
        """With the key in its header; an empty key sends none. Without TLS there are no authorities
        to be read, which takes 60 ms each time."""
        given = self.key.key if key is None else key
        headers = {"authorization": f"Bearer {given}"} if given else {}
        return httpx.AsyncClient(
            base_url=self.url, headers=headers, timeout=20, verify=False, **more
        )

    def route(self, *ports: int, model: str = "qwen") -> None:
        """These ports, and no others, are the model's ready replicas."""
        self.store.replace(
            "pods", [pod_object(f"{model}-{i}", port, model) for i, port in enumerate(ports)]
        )
        self.store.refresh()

    def metric(self, name: str, **labels: str) -> float:
        return self.telemetry.registry.get_sample_value(name, labels) or 0.0


def signing_pem() -> bytes:
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def signing_key(directory: Path) -> SigningKey:
    """As mounted, already read."""
    (directory / wire.SIGNING_CURRENT).write_bytes(signing_pem())
    signing = SigningKey(directory)
    signing.file.look()
    return signing


ADMIN_TOKEN = "the token of the tests' administrators"


def admin_token(directory: Path) -> AdminToken:
    """As mounted, already read."""
    (directory / wire.ADMIN_TOKEN).write_text(ADMIN_TOKEN + "\n")
    token = AdminToken(directory)
    token.file.look()
    return token


@contextlib.asynccontextmanager
async def running_gateway(
    directory: Path,
    *,
    clock: Clock = SYSTEM,
    synced: bool = True,
    body_read_seconds: float = 5,
    exporter: Exporter | None = None,
    **config: Any,
) -> AsyncIterator[Running]:
    """One key for every model, one model `qwen` without replicas; keywords go into the config,
    but for `api_server`: host and port of what is no provider, and `answers`: SharedAnswers."""
    pool, telemetry, ledger = Pool(), Telemetry(), LocalLedger(clock)
    balance = Balance(Breakers())

    def changed(catalog: Catalog) -> None:
        pool.retain(catalog.replica_ids)
        balance.retain(catalog, clock.monotonic())
        ledger.retain(catalog.key_uids)
        telemetry.catalog_changed(catalog)
        waiting.look(catalog)

    answers, api_server = config.pop("answers", None), config.pop("api_server", ("", 0))
    admin, cache = admin_token(directory), ResponseCache(clock.monotonic, shared=answers)
    waiting = Waiting(balance.load)
    told, provider_keys = GatewayConfig(**config), ProviderKeys()
    networks = addresses.networks(told.provider_networks)
    store = CatalogStore(changed, clock, told.max_staleness_seconds)
    signing, log = signing_key(directory), list[bytes]()
    gateway = create_app(
        told,
        Parts(
            store=store,
            pool=pool,
            balance=balance,
            tokens=signing,
            provider_keys=provider_keys,
            outside=Outside(networks, api_server, Path(told.provider_ca_dir) / "ca.crt"),
            telemetry=telemetry,
            limits=LocalStore(MemoryStore(clock)),
            ledger=ledger,
            cache=cache,
            waiting=waiting,
            exporter=exporter,
            admin=admin,
            can_sign=lambda: signing.ready,
            write_log=log.append,
            clock=clock,
            body_read_seconds=body_read_seconds,
        ),
    )
    listener = bind("127.0.0.1", 0)
    key = new_key()
    if synced:
        store.replace("apikeys", [key_object(key)])
        store.replace("modeldeployments", [model_object()])
        store.replace("pods", [])
        store.refresh()
    running = Running(
        port=listener.getsockname()[1],
        store=store,
        gateway=gateway,
        pool=pool,
        telemetry=telemetry,
        stop=asyncio.Event(),
        key=key,
        provider_keys=provider_keys,
        log=log,
    )

    def draining() -> None:
        gateway.health.draining = True

    drain = Drain(linger=0, timeout=5, on_draining=draining)
    serving = asyncio.create_task(serve(gateway.app, listener, running.stop, drain))
    try:
        yield running
    finally:
        running.stop.set()
        await serving
        pool.close()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
