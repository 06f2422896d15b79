"""The operator's metrics, and the small HTTP server for them and for the probes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """What the operator counts. Labels are bounded: kinds, verbs and outcomes."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconciles = Counter(
            "pippin_operator_reconciles_total",
            "Runs by kind and how they ended.",
            ["kind", "outcome"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "pippin_operator_reconcile_seconds",
            "Duration of runs.",
            ["kind"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.requests = Counter(
            "pippin_operator_api_requests_total",
            "Requests to the API server by verb, resource and status class.",
            ["verb", "resource", "status"],
            registry=self.registry,
        )
        self.queue = Gauge(
            "pippin_operator_queue_depth",
            "Objects that run or wait for a slot.",
            registry=self.registry,
        )
        self.gateways_silent = Gauge(
            "pippin_operator_gateways_silent",
            "Gateways that did not tell how much models are in demand: nothing is scaled down.",
            registry=self.registry,
        )


def application(metrics: Metrics, ready: Callable[[], bool]) -> web.Application:
    """`/metrics`, `/healthz` (the loop turns) and `/readyz` (everything has been read once)."""

    async def exposition(_: web.Request) -> web.Response:
        body = generate_latest(metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        if ready():
            return web.Response(text="ok\n")
        return web.Response(status=503, text="the first reading is not finished\n")

    app = web.Application()
    app.router.add_get("/metrics", exposition)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    return app


@asynccontextmanager
async def served(app: web.Application, host: str, port: int) -> AsyncIterator[None]:
    """Listens while the block runs."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield
    finally:
        await runner.cleanup()
