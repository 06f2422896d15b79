"""GET /metrics (Prometheus) and /v1/queue/stats."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import generate_latest
from starlette.requests import Request
from starlette.responses import Response

from pippin_edge.metrics import CONTENT_TYPE

from ..admission import Admission
from ..lifecycle import Lifecycle
from ..telemetry import State, Telemetry
from .json import answer


def router(admission: Admission, lifecycle: Lifecycle, telemetry: Telemetry) -> APIRouter:
    routes = APIRouter()

    @routes.get("/metrics")
    async def metrics() -> Response:
        telemetry.show(
            State(
                active=admission.active,
                pending=admission.pending,
                batch=lifecycle.engine.activity().batch,
                ready=lifecycle.stage == "ready",
                alive=lifecycle.not_alive() is None,
                load_seconds=lifecycle.load_seconds,
                load_bytes=lifecycle.loaded.bytes if lifecycle.loaded else 0,
            )
        )
        text = generate_latest(telemetry.registry)
        return Response(text, headers={"content-type": CONTENT_TYPE.decode()})

    @routes.get("/v1/queue/stats")
    async def queue(request: Request) -> Response:
        found = {
            "active": admission.active,
            "pending": admission.pending,
            "pending_batch": admission.pending_batch,
            "max_concurrency": admission.max_concurrency,
            "max_queue": admission.max_queue,
            "draining": admission.draining,
        }
        return answer(request, found)

    return routes
