"""GET /health, /ready, /livez: for people, for the router, for the kubelet."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from pippin_edge.clock import Clock

from ..stand import House
from .json import answer


def router(house: House, *, warmup: bool, clock: Clock) -> APIRouter:
    routes = APIRouter()

    @routes.get("/health")
    async def health(request: Request) -> Response:
        began = clock.monotonic()
        reason = house.not_ready()
        found: dict[str, object] = {
            "status": "unhealthy" if reason else "ok",
            "models_healthy": reason is None,
            "warmup_enabled": warmup,
            **house.health(),
        }
        if reason is not None:
            found["reason"] = reason
        found["latency_ms"] = round((clock.monotonic() - began) * 1000, 3)
        return answer(request, found, 503 if reason else 200)

    @routes.get("/ready")
    async def ready(request: Request) -> Response:
        return _told(request, house.not_ready(), "ready")

    @routes.get("/livez")
    async def livez(request: Request) -> Response:
        return _told(request, house.not_alive(), "alive")

    return routes


def _told(request: Request, reason: str | None, good: str) -> Response:
    if reason is None:
        return answer(request, {"status": good})
    return answer(request, {"status": f"not {good}", "reason": reason}, 503)
