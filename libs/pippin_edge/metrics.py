"""Prometheus metrics with bounded labels, and the endpoint that shows them.

Every process has its own registry, passed in; nothing is global.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase

from .asgi import App, Receive, Scope, Send

M = TypeVar("M", bound=MetricWrapperBase)

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
#: Seconds. From a fast refusal to a long answer.
DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
#: What stands for every label set beyond the bound.
OTHER = "other"


class Bounded(Generic[M]):
    """A metric's children by label values, kept at hand, and never more than `limit` of them.

    Label values must come from our own tables; the bound is the second line of defence.
    """

    def __init__(self, metric: M, limit: int = 2000) -> None:
        self.metric = metric
        self.limit = limit
        self._children: dict[tuple[str, ...], M] = {}

    def __call__(self, *values: str) -> M:
        child = self._children.get(values)
        if child is None:
            child = self._make(values)
        return child

    def _make(self, values: tuple[str, ...]) -> M:
        if len(self._children) >= self.limit:
            values = (OTHER,) * len(values)
        child: M = self.metric.labels(*values)
        self._children[values] = child
        return child


def counter(
    registry: CollectorRegistry, name: str, text: str, labels: tuple[str, ...]
) -> Bounded[Counter]:
    """`name` without `_total`."""
    return Bounded(Counter(name, text, labels, registry=registry))


def gauge(
    registry: CollectorRegistry, name: str, text: str, labels: tuple[str, ...]
) -> Bounded[Gauge]:
    return Bounded(Gauge(name, text, labels, registry=registry))


def histogram(
    registry: CollectorRegistry,
    name: str,
    text: str,
    labels: tuple[str, ...],
    buckets: tuple[float, ...] = DURATION_BUCKETS,
) -> Bounded[Histogram]:
    return Bounded(Histogram(name, text, labels, registry=registry, buckets=buckets))


def build_info(registry: CollectorRegistry, component: str, version: str) -> None:
    """`pippin_build_info{component,version} 1`."""
    Gauge(
        "pippin_build_info", "What runs here.", ("component", "version"), registry=registry
    ).labels(component, version).set(1)


def endpoint(registry: CollectorRegistry, refresh: Callable[[], object] = lambda: None) -> App:
    """An ASGI app with the registry as Prometheus text; `refresh` sets gauges just before."""

    async def show(scope: Scope, receive: Receive, send: Send) -> None:
        refresh()
        text = generate_latest(registry)
        headers = [(b"content-type", CONTENT_TYPE), (b"content-length", b"%d" % len(text))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    return show
