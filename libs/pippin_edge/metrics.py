"""Prometheus metrics with bounded labels, and the endpoint that shows them.

Every process has its own registry, passed in; nothing is global.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from .asgi import App, Receive, Scope, Send

M = TypeVar("M", bound=MetricWrapperBase)

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
#: Seconds. From a fast refusal to a long answer.
DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
#: Label sets that a metric may have.
LIMIT = 2000
#: What stands for every label set beyond the bound.
OTHER = "other"


class Bounded(Generic[M]):
    """A metric's children by label values, kept at hand, and never more than `limit` of them.

    Label values must come from our own tables; the bound is the second line of defence.
    """

    def __init__(self, metric: M, limit: int = LIMIT) -> None:
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


class Tally(Collector):
    """A counter, or a gauge that goes up and down, for paths where microseconds count.

    A dictionary: no lock, so it belongs to one event loop. `name` without `_total`.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        name: str,
        text: str,
        labels: tuple[str, ...],
        *,
        falls: bool = False,
    ) -> None:
        self._family = GaugeMetricFamily if falls else CounterMetricFamily
        self._name, self._text, self._labels = name, text, labels
        self._values: dict[tuple[str, ...], float] = {}
        registry.register(self)

    def add(self, labels: tuple[str, ...], amount: float = 1) -> None:
        """Label sets beyond the bound are counted together."""
        values = self._values
        try:
            values[labels] += amount
        except KeyError:
            if len(values) >= LIMIT:
                labels = (OTHER,) * len(labels)
            values[labels] = values.get(labels, 0.0) + amount

    def collect(self) -> Iterator[Metric]:
        family = self._family(self._name, self._text, labels=self._labels)
        for labels, value in self._values.items():
            family.add_metric(labels, value)
        yield family


class Distribution(Collector):
    """A histogram for the same paths, under the same rules."""

    def __init__(
        self,
        registry: CollectorRegistry,
        name: str,
        text: str,
        labels: tuple[str, ...],
        *,
        buckets: tuple[float, ...] = DURATION_BUCKETS,
    ) -> None:
        self._name, self._text, self._labels, self._buckets = name, text, labels, buckets
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}
        registry.register(self)

    def observe(self, labels: tuple[str, ...], value: float) -> None:
        counts = self._counts.get(labels)
        if counts is None:
            if len(self._counts) >= LIMIT:
                labels = (OTHER,) * len(labels)
            counts = self._counts.setdefault(labels, [0] * (len(self._buckets) + 1))
        counts[bisect_left(self._buckets, value)] += 1
        self._sums[labels] = self._sums.get(labels, 0.0) + value

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        bounds = [*map(floatToGoString, self._buckets), "+Inf"]
        for labels, counts in self._counts.items():
            family.add_metric(
                labels,
                buckets=list(zip(bounds, accumulate(counts), strict=True)),
                sum_value=self._sums[labels],
            )
        yield family


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
