"""The server's metrics, under the names of the whole product; labels come from our own tables."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from pippin_contract import __version__
from pippin_edge.metrics import (
    DURATION_BUCKETS,
    Distribution,
    build_info,
    counter,
    gauge,
    histogram,
)

#: Seconds between tokens, and until the first.
_TOKEN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_BY = ("model", "engine")


@dataclass(frozen=True, slots=True)
class State:
    """What gauges show, looked up when someone asks."""

    active: int = 0
    pending: int = 0
    batch: int = 0
    ready: bool = False
    alive: bool = True
    load_seconds: float = 0.0
    load_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """A prompt cache of the server's own. Bytes."""

    enabled: bool = False
    bytes: int = 0
    capacity: int = 0
    evicted: int = 0
    drops: int = 0


@dataclass(frozen=True, slots=True)
class CacheUse:
    """Tokens of prompts that were in the prompt cache, and that were not. `kept` None: the engine
    has one of its own, and tells of it by itself."""

    hits: int = 0
    misses: int = 0
    kept: Kept | None = Kept()


class Answers:
    """Requests by their answers. Without a model: those that are about none."""

    def __init__(self, registry: CollectorRegistry, model: str = "", engine: str = "") -> None:
        self.registry = registry
        self._names = (model, engine)
        #: Set by who knows.
        self.cache_use: Callable[[], CacheUse] = CacheUse
        by = (*_BY, "endpoint")
        self._requests = counter(registry, "pippin_server_requests", "Answers.", (*by, "code"))
        self._duration = histogram(
            registry,
            "pippin_server_request_duration_seconds",
            "From first byte in to last out.",
            by,
        )
        build_info(registry, "server", __version__)

    def answered(self, endpoint: str, code: int, seconds: float) -> None:
        self._requests(*self._names, endpoint, str(code)).inc()
        self._duration(*self._names, endpoint).observe(seconds)


class Telemetry(Answers):
    """Counted in place while requests run."""

    def __init__(self, registry: CollectorRegistry, model: str, engine: str) -> None:
        super().__init__(registry, model, engine)
        self._make_token_metrics(registry)
        self._make_gauges(registry)
        #: Whether the engine does less than it could, and how often memory ran out.
        self.strain: Callable[[], tuple[bool, int]] = lambda: (False, 0)
        self.add(self._cache)
        self.add(self._memory)

    def _make_token_metrics(self, registry: CollectorRegistry) -> None:
        def times(name: str, text: str, buckets: tuple[float, ...]) -> Callable[[float], object]:
            """To be told of each one, by the event loop alone."""
            return partial(
                Distribution(registry, name, text, _BY, buckets=buckets).observe, self._names
            )

        def tokens(name: str, text: str) -> Counter:
            return counter(registry, name, text, _BY)(*self._names)

        self.queue_wait = times(
            "pippin_server_queue_wait_seconds",
            "Time until a request was admitted.",
            DURATION_BUCKETS,
        )
        self.first_token = times(
            "pippin_server_time_to_first_token_seconds", "Until the first token.", _TOKEN_BUCKETS
        )
        self.inter_token = times(
            "pippin_server_inter_token_seconds", "Between two tokens of one answer.", _TOKEN_BUCKETS
        )
        batch = "pippin_server_embedding_batch_inputs"
        self.embedding_batch = histogram(
            registry, batch, "Texts embedded together.", _BY, _BATCH_BUCKETS
        )(*self._names)
        self.prompt_tokens = tokens("pippin_server_prompt_tokens", "Tokens read.")
        self.completion_tokens = tokens("pippin_server_completion_tokens", "Tokens made.")

    def _make_gauges(self, registry: CollectorRegistry) -> None:
        def one(name: str, text: str) -> Gauge:
            return gauge(registry, name, text, _BY)(*self._names)

        self._in_flight = one("pippin_server_requests_in_flight", "Requests that hold a slot.")
        self._queue_depth = one("pippin_server_queue_depth", "Requests that wait for a slot.")
        self._batch = one("pippin_server_batch_size", "Requests in the engine's current step.")
        self._loaded = one("pippin_server_models_loaded", "Models that can answer.")
        self._stalled = one(
            "pippin_server_engine_stalled", "1 when the engine stands still or is dead."
        )
        self._load_seconds = one("pippin_server_model_load_seconds", "Time that loading took.")
        self._load_bytes = one("pippin_server_model_load_bytes", "Size of the weights in memory.")

    def step(
        self, *, prompt: int, completion: int, first: Sequence[float], between: Sequence[float]
    ) -> None:
        """What a hosting engine did in one step; see `engines.base.Meter`."""
        self.prompt_tokens.inc(prompt)
        self.completion_tokens.inc(completion)
        for seconds in first:
            self.first_token(seconds)
        for seconds in between:
            self.inter_token(seconds)

    def _cache(self) -> Iterable[Metric]:
        use = self.cache_use()
        counters: dict[str, tuple[str, float]] = {
            "hits": ("Tokens of prompts that were found in the prompt cache.", use.hits),
            "misses": ("Tokens of prompts that were not found in the prompt cache.", use.misses),
        }
        gauges: dict[str, tuple[str, float]] = {}
        if (kept := use.kept) is not None:
            gauges["enabled"] = ("1 when prompts are kept, 0 when not.", int(kept.enabled))
            gauges["bytes"] = ("Memory of the keys and values that are kept.", kept.bytes)
            gauges["capacity_bytes"] = ("The most that they may take.", kept.capacity)
            counters["evictions"] = ("Blocks of tokens that made room for others.", kept.evicted)
            counters["drops"] = ("Times that all of it was given up.", kept.drops)
        for kind, told in ((CounterMetricFamily, counters), (GaugeMetricFamily, gauges)):
            for name, (words, value) in told.items():
                found = kind(f"pippin_server_prompt_cache_{name}", words, labels=_BY)
                found.add_metric(self._names, value)
                yield found

    def _memory(self) -> Iterable[Metric]:
        now, often = self.strain()
        words = "1 while the engine does less than it could, since memory ran out."
        degraded = GaugeMetricFamily("pippin_server_degraded", words, labels=_BY)
        degraded.add_metric(self._names, int(now))
        words = "Times that memory ran out in a step of the engine."
        times = CounterMetricFamily("pippin_server_out_of_memory", words, labels=_BY)
        times.add_metric(self._names, often)
        return degraded, times

    def add(self, metrics: Callable[[], Iterable[Metric]]) -> None:
        """Show these with ours."""
        self.registry.register(Collected(metrics))

    def show(self, state: State) -> None:
        self._in_flight.set(state.active)
        self._queue_depth.set(state.pending)
        self._batch.set(state.batch)
        self._loaded.set(int(state.ready))
        self._stalled.set(int(not state.alive))
        self._load_seconds.set(state.load_seconds)
        self._load_bytes.set(state.load_bytes)


class Together(Collector):
    """The metrics of several registries, each name once."""

    def __init__(self, registries: Callable[[], Iterable[CollectorRegistry]]) -> None:
        self._registries = registries

    def collect(self) -> Iterable[Metric]:
        return merged(registry.collect() for registry in self._registries())


def merged(families: Iterable[Iterable[Metric]]) -> list[Metric]:
    """Samples that are the same in several are there once."""
    found: dict[str, Metric] = {}
    said: set[tuple[str, frozenset[tuple[str, str]]]] = set()
    for metric in itertools.chain.from_iterable(families):
        kept = found.setdefault(
            metric.name, Metric(metric.name, metric.documentation, metric.type, metric.unit)
        )
        for sample in metric.samples:
            which = sample.name, frozenset(sample.labels.items())
            if which not in said:
                said.add(which)
                kept.samples.append(sample)
    return list(found.values())


def evictions(counted: Callable[[], Iterable[tuple[str, str, int]]]) -> Callable[[], list[Metric]]:
    """Of several models: name, engine, how often it went."""

    def collect() -> list[Metric]:
        words = "Times that a model made room for another."
        found = CounterMetricFamily("pippin_server_model_evictions", words, labels=_BY)
        for model, engine, times in counted():
            found.add_metric((model, engine), times)
        return [found]

    return collect


class Collected(Collector):
    def __init__(self, metrics: Callable[[], Iterable[Metric]]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics()
