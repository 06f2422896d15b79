"""What vLLM tells of its steps, for our metrics and the liveness probe; and its own metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample
from vllm.v1.metrics.loggers import StatLoggerBase

if TYPE_CHECKING:
    from .engine import VllmEngine

_THEIRS = "vllm:"
_OURS = "vllm_"


class Steps(StatLoggerBase):  # type: ignore[misc]
    """Told after every step of one of vLLM's engine processes."""

    def __init__(self, engine: VllmEngine, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._clock = clock

    def record(
        self, scheduler_stats: Any, iteration_stats: Any, *args: object, **more: object
    ) -> None:
        engine = self._engine
        if scheduler_stats is not None:
            engine.batch = scheduler_stats.num_running_reqs
            engine.progressed_at = self._clock()
            cache = scheduler_stats.prefix_cache_stats
            engine.cache_hits += cache.hits
            engine.cache_misses += cache.queries - cache.hits
        if iteration_stats is not None:
            engine.meter.step(
                prompt=iteration_stats.num_prompt_tokens,
                completion=iteration_stats.num_generation_tokens,
                first=iteration_stats.time_to_first_tokens_iter,
                between=iteration_stats.inter_token_latencies_iter,
            )

    def log_engine_initialized(self) -> None:
        """Nothing to say: the load is reported by the server."""


def renamed(registry: CollectorRegistry) -> Iterator[Metric]:
    """vLLM's metrics without the colon, which belongs to recording rules, and without `_total`
    on what is no counter."""
    for metric in registry.collect():
        if not metric.name.startswith(_THEIRS):
            continue
        old = metric.name
        new = _OURS + old.removeprefix(_THEIRS)
        if metric.type != "counter":
            new = new.removesuffix("_total")
        found = Metric(new, metric.documentation, metric.type)
        found.samples = [
            Sample(new + sample.name.removeprefix(old), *sample[1:])
            for sample in metric.samples
            if not sample.name.endswith("_created")
        ]
        yield found
