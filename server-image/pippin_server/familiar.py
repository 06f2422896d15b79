"""Our metrics once more, under the names that dashboards of earlier servers ask for.

Made when they are read, of what is counted anyway.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from .telemetry import Answers, merged

_REQUESTS = "pippin_server_requests"
_DURATION = "pippin_server_request_duration_seconds"
_LOADED = "pippin_server_models_loaded"
_LOAD_SECONDS = "pippin_server_model_load_seconds"


class Familiar(Collector):
    """`hf_server_…`, of our own telemetry; of all models, where there are several."""

    def __init__(
        self, telemetries: Callable[[], Sequence[Answers]], clock: Callable[[], float]
    ) -> None:
        self._telemetries = telemetries
        self._clock = clock
        self._read = clock(), time.process_time()

    def collect(self) -> Iterator[Metric]:
        names = [_REQUESTS + "_total", _LOADED, _LOAD_SECONDS]
        names += [_DURATION + part for part in ("_bucket", "_sum", "_count")]
        every = self._telemetries()
        found = merged(one.registry.restricted_registry(names).collect() for one in every)
        ours = {metric.name: metric for metric in found}
        # Before the first request, or the first model, some are not among them.
        none = Metric(_DURATION, "From first byte in to last out.", "histogram")
        yield from _requests(ours.get(_REQUESTS, none))
        yield _renamed(
            ours.get(_DURATION, none), "hf_server_request_duration_seconds", {"endpoint"}
        )
        loaded = ours.get(_LOADED, Metric(_LOADED, "Models that can answer.", "gauge"))
        yield _renamed(loaded, "hf_server_models_loaded", set())
        took = ours.get(_LOAD_SECONDS, Metric(_LOAD_SECONDS, "Time that loading took.", "gauge"))
        yield _renamed(took, "hf_server_model_load_duration_seconds", set())
        uses = [one.cache_use() for one in every]
        yield _cache("hits", sum(use.hits for use in uses))
        yield _cache("misses", sum(use.misses for use in uses))
        yield self._utilization()

    def _utilization(self) -> Metric:
        """What share of the processors this process has used since the last look."""
        (before, used), self._read = self._read, (self._clock(), time.process_time())
        now, used_now = self._read
        share = (used_now - used) / max(now - before, 1e-3) / (os.cpu_count() or 1)
        found = GaugeMetricFamily(
            "hf_server_hardware_utilization", "Share in use, by kind.", labels=("type",)
        )
        found.add_metric(("cpu",), round(min(share, 1.0), 4))
        return found


def _requests(metric: Metric) -> Iterable[Metric]:
    """By status, and the failed ones by whose fault it was."""
    labels = ("model", "endpoint", "status")
    answers = CounterMetricFamily("hf_server_requests", "Answers.", labels=labels)
    failed: dict[tuple[str, str], float] = defaultdict(float)
    for sample in metric.samples:
        if not sample.name.endswith("_total"):
            continue
        model, code = sample.labels["model"], sample.labels["code"]
        answers.add_metric((model, sample.labels["endpoint"], code), sample.value)
        if code >= "400":
            failed[model, "server" if code >= "500" else "client"] += sample.value
    errors = CounterMetricFamily(
        "hf_server_errors", "Answers that are errors.", labels=("model", "type")
    )
    for whose, count in failed.items():
        errors.add_metric(whose, count)
    return answers, errors


def _cache(name: str, tokens: int) -> Metric:
    found = CounterMetricFamily(
        f"hf_server_cache_{name}", f"Tokens of prompts: {name} of the cache.", labels=("type",)
    )
    found.add_metric(("prompt",), tokens)
    return found


def _renamed(metric: Metric, name: str, kept: set[str]) -> Metric:
    """With the model, the labels in `kept`, and what a histogram needs."""
    found = Metric(name, metric.documentation, metric.type)
    for sample in metric.samples:
        if sample.name.endswith("_created"):
            continue
        labels = {k: v for k, v in sample.labels.items() if k in {"model", "le", *kept}}
        found.samples.append(
            Sample(sample.name.replace(metric.name, name, 1), labels, sample.value)
        )
    return found
