"""GET /v1/metrics, /status and /internal/diagnostics: for people and scripts that read JSON."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from pippin_edge.clock import Clock
from pippin_edge.errors import BadRequest
from pippin_edge.metrics import CONTENT_TYPE

from ..figures import WINDOW, Figures
from ..hardware.report import described
from ..hardware.watch import Watch
from ..stand import House, Stand
from .admin import require_insider
from .json import answer

GIB = 1024**3


class Diagnostics:
    """What there is to tell of a server and its models."""

    def __init__(self, house: House, hardware: Watch, clock: Clock) -> None:
        hardware.now()  # so that it is known by the time somebody asks
        self._hardware = hardware
        self._house = house
        self._figures: Figures = house.figures
        self._clock = clock

    def performance(self) -> dict[str, object]:
        """The prompt cache, times, memory and throughput."""
        figures, latency = self._figures, self._figures.latency()
        return {
            "timestamp": _stamp(self._clock.wall()),
            "uptime_seconds": round(figures.uptime, 3),
            "cache": self._cache(),
            "latency": {
                "p50_ms": latency.p50,
                "p95_ms": latency.p95,
                "p99_ms": latency.p99,
                "samples": latency.samples,
            },
            "memory": figures.memory_mb(),
            "throughput": {
                "requests_per_second": round(figures.per_second(), 4),
                "total_requests": figures.requests,
                "window_seconds": WINDOW,
            },
        }

    def everything(self) -> dict[str, object]:
        """Model, queue and configuration."""
        began = self._clock.monotonic()
        house = self._house
        why, queue = house.not_ready(), house.queue()
        found: dict[str, object] = {
            "timestamp": _stamp(self._clock.wall()),
            "status": "ok" if why is None else "unhealthy",
            "handler_initialized": bool(house.ready()),
            "registry_initialized": True,
            "vram": self._vram(),
            "models": self._models(),
            "cache": self._cache(),
            "degraded": self._strain(),
            "queue": {name: queue[name] for name in ("active", "pending", "max_concurrency")},
            "config": house.settings(),
        }
        if why is not None:
            found["reason"] = why
        found["diagnostics_latency_ms"] = round((self._clock.monotonic() - began) * 1000, 3)
        return found

    def status(self) -> dict[str, object]:
        """What works, the prompt cache, the model and the machine."""
        house = self._house
        why, queue = house.not_ready(), house.queue()
        found: dict[str, object] = {
            "timestamp": _stamp(self._clock.wall()),
            "status": "ok" if why is None else "unhealthy",
            "components": {
                **house.components(),
                "engine": "alive" if house.not_alive() is None else "dead",
                "admission": "draining" if queue["draining"] else "open",
            },
            "cache": self._cache(),
            "degraded": self._strain(),
            "models": self._models(),
            "memory": house.memory(),
            "hardware": self._machine(),
        }
        if why is not None:
            found["reason"] = why
        return found

    def _machine(self) -> dict[str, object]:
        found = self._hardware.now()
        if found is None:
            return {"cpus": os.cpu_count(), "notes": ["not looked at yet"]}
        totals = {"cpus": found.cpu.usable, "memory_bytes": found.memory.usable}
        return {**totals, **described(found)}

    def _vram(self) -> dict[str, object]:
        """Of all GPUs that have memory of their own, together."""
        found = self._hardware.now()
        gpus = [
            (gpu.memory, gpu.used)
            for gpu in (found.accelerators if found else ())
            if gpu.memory and gpu.used is not None and not gpu.unified
        ]
        told: dict[str, object] = {"enabled": bool(gpus)}
        if gpus:
            total, used = sum(size for size, _ in gpus), sum(used for _, used in gpus)
            told |= {"total_gb": round(total / GIB, 3), "max_gb": round(total / GIB, 3)}
            told |= {"available_gb": round((total - used) / GIB, 3)}
            told |= {"usage_percent": round(100 * used / total, 1)}
        return {**told, "model_count": len(self._house.ready())}

    def _strain(self) -> dict[str, object] | None:
        """Of engines that do less at once after memory ran out, together."""
        seen = [stand.engine.activity().strain for stand in self._house.stands()]
        strains = [strain for strain in seen if strain is not None]
        if not strains:
            return None
        told: dict[str, object] = {"active": any(one.degraded for one in strains)}
        told["out_of_memory"] = sum(one.times for one in strains)
        told["max_batch"] = sum(one.batch for one in strains)
        told["full_batch"] = sum(one.full for one in strains)
        return {**told, "freed_bytes": sum(one.freed for one in strains)}

    def _cache(self) -> dict[str, object]:
        """Tokens of prompts that the engines had already, and that they had to read; what they
        keep."""
        seen = [stand.engine.activity() for stand in self._house.stands()]
        hits, misses = sum(one.cache_hits for one in seen), sum(one.cache_misses for one in seen)
        rate = round(hits / (hits + misses), 4) if hits + misses else 0.0
        told: dict[str, object] = {"hits": hits, "misses": misses, "hit_rate": rate}
        kept = [one.cache for one in seen if one.cache is not None]
        if not kept:
            return told
        on = [one for one in kept if one.reason is None]
        told |= {"enabled": bool(on), "bytes": sum(one.bytes for one in kept)}
        told |= {"drops": sum(one.drops for one in kept)}
        told |= {"capacity_bytes": sum(one.capacity for one in kept)}
        told |= {"evictions": sum(one.evicted for one in kept)}
        return told if on else {**told, "reason": kept[0].reason}

    def _models(self) -> dict[str, object]:
        stats = [self._stat(stand) for stand in self._house.ready()]
        return {"count": len(stats), "stats": stats, **self._house.models()}

    def _stat(self, stand: Stand) -> dict[str, object]:
        loaded, figures, model = stand.lifecycle.loaded, stand.books.figures, stand.config.model
        last = figures.last_at
        if last is not None:
            last = self._clock.wall() - (self._clock.monotonic() - last)
        return {
            "model_id": stand.config.served_name,
            "type": model.task,
            "family": model.family or None,
            "request_count": figures.requests,
            "vram_usage_gb": round((loaded.bytes if loaded else 0) / GIB, 3),
            "last_access": None if last is None else _stamp(last),
            "created_at": _stamp(self._clock.wall() - figures.uptime),
        }


def _stamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")


class _Prometheus(Collector):
    """The same figures under the names that scripts of earlier servers know."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._told = told

    def collect(self) -> Iterable[Metric]:
        told, prefix = self._told, "mlx_server_"
        for name in ("hits", "misses"):
            words = f"Tokens of prompts: {name} of the prompt cache."
            yield CounterMetricFamily(f"{prefix}cache_{name}", words, told["cache"][name])
        gauges = {
            "cache_hit_rate": ("Share of hits.", told["cache"]["hit_rate"]),
            **{
                f"latency_{name}_ms": (f"Latency, {name}.", told["latency"][f"{name}_ms"])
                for name in ("p50", "p95", "p99")
            },
            **{
                f"memory_{name}_mb": (f"Memory, {name}.", told["memory"][f"{name}_mb"])
                for name in ("current", "peak", "growth")
            },
            "throughput_rps": ("Answers a second.", told["throughput"]["requests_per_second"]),
        }
        for name, (words, value) in gauges.items():
            yield GaugeMetricFamily(prefix + name, words, value)
        words = "Seconds since the start."
        yield CounterMetricFamily(f"{prefix}uptime_seconds", words, told["uptime_seconds"])


def router(diagnostics: Diagnostics, verify: Callable[[str], object]) -> APIRouter:
    """`verify`: see `admin.require_insider`."""
    routes = APIRouter()

    @routes.get("/v1/metrics")
    async def performance(request: Request) -> Response:
        told = diagnostics.performance()
        match request.query_params.get("format", "json"):
            case "json":
                return answer(request, told)
            case "prometheus":
                registry = CollectorRegistry()
                registry.register(_Prometheus(told))
                text = generate_latest(registry)
                return Response(text, headers={"content-type": CONTENT_TYPE.decode()})
        raise BadRequest("format is json or prometheus", param="format")

    @routes.get("/status")
    async def status(request: Request) -> Response:
        return answer(request, diagnostics.status())

    @routes.get("/internal/diagnostics")
    async def everything(request: Request) -> Response:
        require_insider(request, verify)
        return answer(request, diagnostics.everything())

    return routes
