"""POST /v1/load_lora_adapter and /v1/unload_lora_adapter, as vLLM names them: for who runs the
server, where it allows sources."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from pippin_edge import json_body
from pippin_edge.errors import BadRequest

from ..adapting import Adapting
from ..answering import Kitchen
from .admin import require_insider
from .json import answer
from .reading import Desk


def router(
    desk: Desk, kitchen: Kitchen, adapting: Adapting, verify: Callable[[str], object]
) -> APIRouter:
    routes = APIRouter()

    async def asked(request: Request, *names: str) -> list[str]:
        require_insider(request, verify)
        body = json_body.parse(await desk.raw_body(request))
        unknown = next(iter(body.keys() - set(names)), None)
        if unknown is not None:
            raise BadRequest(
                f"'{unknown[:64]}': unknown parameter: leave it out",
                param=unknown[:64],
                code="unknown_parameter",
            )
        kitchen.refuse_unless_ready()
        return [json_body.text(body, name) for name in names]

    @routes.post("/v1/load_lora_adapter")
    async def load(request: Request) -> Response:
        name, path = await asked(request, "lora_name", "lora_path")
        return answer(request, {"id": (await adapting.load(name, path)).served, "loaded": True})

    @routes.post("/v1/unload_lora_adapter")
    async def unload(request: Request) -> Response:
        (name,) = await asked(request, "lora_name")
        return answer(request, {"id": (await adapting.unload(name)).served, "loaded": False})

    return routes
