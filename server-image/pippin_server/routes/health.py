"""GET /health, /ready, /livez: for people, for the router, for the kubelet."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from pippin_contract.serverconfig import ServerConfig
from pippin_edge.clock import Clock

from ..lifecycle import Lifecycle, LoadProgress
from .json import answer


def router(config: ServerConfig, lifecycle: Lifecycle, *, warmup: bool, clock: Clock) -> APIRouter:
    routes = APIRouter()

    @routes.get("/health")
    async def health(request: Request) -> Response:
        began = clock.monotonic()
        reason = lifecycle.not_ready()
        words = {"ready": "initialized"}.get(lifecycle.stage, lifecycle.stage)
        found: dict[str, object] = {
            "status": "unhealthy" if reason else "ok",
            "model_id": config.served_name,
            "model_status": words,
            "models_healthy": reason is None,
            "warmup_enabled": warmup,
            "warmup_completed": lifecycle.warmed_up,
        }
        if reason is not None:
            found["reason"] = reason
        if lifecycle.stage == "loading":
            found["progress"] = _progress(lifecycle.progress)
        found["latency_ms"] = round((clock.monotonic() - began) * 1000, 3)
        return answer(request, found, 503 if reason else 200)

    @routes.get("/ready")
    async def ready(request: Request) -> Response:
        return _told(request, lifecycle.not_ready(), "ready")

    @routes.get("/livez")
    async def livez(request: Request) -> Response:
        return _told(request, lifecycle.not_alive(), "alive")

    return routes


def _progress(progress: LoadProgress) -> dict[str, object]:
    found: dict[str, object] = {"percent": progress.percent, "message": progress.message}
    if progress.transfer is not None:
        found |= asdict(progress.transfer)
    return found


def _told(request: Request, reason: str | None, good: str) -> Response:
    if reason is None:
        return answer(request, {"status": good})
    return answer(request, {"status": f"not {good}", "reason": reason}, 503)
