"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from pippin_contract.serverconfig import ServerConfig
from pippin_edge.errors import ModelNotFound

from ..lifecycle import Lifecycle
from ..openai.models import card
from .json import answer


def router(config: ServerConfig, lifecycle: Lifecycle, created: int) -> APIRouter:
    routes = APIRouter()

    def ours() -> dict[str, object]:
        loaded = lifecycle.loaded
        return card(
            config, context_length=loaded.context_length if loaded else None, created=created
        )

    @routes.get("/v1/models")
    async def every(request: Request) -> Response:
        return answer(request, {"object": "list", "data": [ours()]})

    @routes.get("/v1/models/{name:path}")
    async def one(request: Request, name: str) -> Response:
        if name != config.served_name and name not in config.aliases:
            raise ModelNotFound(
                f"the model '{name[:512]}' is not served here: ask /v1/models", param="model"
            )
        return answer(request, ours())

    return routes
