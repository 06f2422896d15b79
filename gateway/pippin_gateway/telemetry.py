"""The gateway's metrics: names, labels, and the moments when they are counted.

Label values are names of objects from the catalog, never a client's text.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from pippin_contract import __version__
from pippin_edge import metrics
from pippin_edge.asgi import Scope
from pippin_edge.limits.claims import Kind

from .catalog.kinds import KINDS
from .catalog.model import Catalog
from .catalog.store import CatalogStore


class Telemetry:
    """One registry and everything in it."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = metrics.Tally(
            registry,
            "pippin_gateway_requests",
            "Requests answered, by model and key (namespace/name; empty where unknown) and code.",
            ("model", "key", "code"),
        )
        self.duration = metrics.Distribution(
            registry,
            "pippin_gateway_request_duration_seconds",
            "From the request's headers to the last byte of the answer.",
            ("model",),
        )
        self.first_token = metrics.Distribution(
            registry,
            "pippin_gateway_time_to_first_token_seconds",
            "From the request's headers to the first event of a stream.",
            ("model",),
        )
        self.in_flight = metrics.Tally(
            registry,
            "pippin_gateway_requests_in_flight",
            "Requests at a replica now.",
            ("model",),
            falls=True,
        )
        self.waiting = metrics.Tally(
            registry,
            "pippin_gateway_requests_waiting",
            "Requests that wait now for a model that has no ready replica.",
            ("model",),
            falls=True,
        )
        self.retries = metrics.counter(
            registry,
            "pippin_gateway_retries",
            "Requests that went to another replica, by what the first one did.",
            ("model", "kind"),
        )
        self.fallbacks = metrics.counter(
            registry,
            "pippin_gateway_fallbacks",
            "Requests that went on to another model, by why the one before could not answer.",
            ("model", "instead", "reason"),
        )
        self.upstream_errors = metrics.counter(
            registry,
            "pippin_gateway_upstream_errors",
            "Attempts that a replica failed, by kind.",
            ("model", "kind"),
        )
        self.refusals = metrics.counter(
            registry,
            "pippin_gateway_limit_refusals",
            "Requests refused by a limit of a key or model (namespace/name), by kind.",
            ("owner", "kind"),
        )
        self.response_cache = metrics.counter(
            registry,
            "pippin_gateway_response_cache",
            "Requests that may have one answer only, of models with responseCache: hit, miss.",
            ("model", "result"),
        )
        self.response_cache_bytes = Gauge(
            "pippin_gateway_response_cache_bytes",
            "Memory of the answers that are kept.",
            registry=registry,
        )
        self.tokens = metrics.Tally(
            registry,
            "pippin_gateway_tokens",
            "Tokens as the replicas counted them, by kind: prompt, completion.",
            ("model", "key", "kind"),
        )
        self._catalog = metrics.gauge(
            registry,
            "pippin_gateway_catalog_objects",
            "What the gateway knows, by kind: keys, models, replicas.",
            ("kind",),
        )
        self.traces_dropped = Counter(
            "pippin_gateway_traces_dropped",
            "Requests whose trace the collector did not take.",
            registry=registry,
        )
        self.breakers_open = Gauge(
            "pippin_gateway_breakers_open",
            "Replicas that failed repeatedly and are left alone, or being tried again.",
            registry=registry,
        )
        self.redis_connected = Gauge(
            "pippin_gateway_redis_connected",
            "1 while limits are counted in Redis, together with the other gateways.",
            registry=registry,
        )
        self._connected = metrics.gauge(
            registry,
            "pippin_gateway_watch_connected",
            "1 while changes of this kind arrive from the API server.",
            ("kind",),
        )
        self._age = Gauge(
            "pippin_gateway_catalog_age_seconds",
            "For how long the API server was not heard of; 0 while changes of all kinds arrive.",
            registry=registry,
        )
        self._from_disk = Gauge(
            "pippin_gateway_catalog_from_snapshot",
            "1 while it serves from what an earlier gateway wrote to disk.",
            registry=registry,
        )
        self.snapshot_written = Gauge(
            "pippin_gateway_snapshot_timestamp_seconds",
            "When what is known was last written to disk (Unix time); 0: not since the start.",
            registry=registry,
        )
        self.snapshot_failing = Gauge(
            "pippin_gateway_snapshot_failing",
            "1 while what is known cannot be written to disk.",
            registry=registry,
        )
        metrics.build_info(registry, "gateway", __version__)

    def observe(self, scope: Scope, status: int, seconds: float) -> None:
        """One request is over."""
        fields = scope["state"]["log"]
        model = fields.get("model", "")
        self.requests.add((model, fields.get("key", ""), str(status)))
        self.duration.observe((model,), seconds)

    def refused(self, owner: str, kind: Kind) -> None:
        """A limit said no."""
        self.refusals(owner, kind).inc()

    def used(self, model: str, key: str, prompt: int, completion: int) -> None:
        """A replica said how many tokens a request took."""
        self.tokens.add((model, key, "prompt"), prompt)
        self.tokens.add((model, key, "completion"), completion)

    def catalog_changed(self, catalog: Catalog) -> None:
        self._catalog("keys").set(len(catalog.keyring))
        self._catalog("models").set(sum(map(len, catalog.by_namespace.values())))
        self._catalog("replicas").set(len(catalog.replica_ids))

    def watched(self, store: CatalogStore) -> None:
        """Set the gauges of the watches; called when metrics are read."""
        for kind in KINDS:
            lost = kind in store.missing or kind in store.stale_since
            self._connected(kind).set(0 if lost else 1)
        self._age.set(store.freshness.age())
        self._from_disk.set(1 if store.restored else 0)
