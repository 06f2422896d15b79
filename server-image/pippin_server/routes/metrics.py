"""GET /metrics (Prometheus) and /v1/queue/stats."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CollectorRegistry, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from pippin_edge.metrics import CONTENT_TYPE

from ..stand import House
from .json import answer


def router(house: House, registry: CollectorRegistry) -> APIRouter:
    routes = APIRouter()

    @routes.get("/metrics")
    async def metrics() -> Response:
        for stand in house.stands():
            stand.show()
        text = generate_latest(registry)
        return Response(text, headers={"content-type": CONTENT_TYPE.decode()})

    @routes.get("/v1/queue/stats")
    async def queue(request: Request) -> Response:
        return answer(request, house.queue())

    return routes
