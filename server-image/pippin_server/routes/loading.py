"""POST /models/load and /models/unload, of a server with several models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from pippin_edge import json_body
from pippin_edge.errors import BadRequest, UnsupportedMedia

from ..openai.models import ModelRequest
from .admin import require_insider
from .json import answer
from .reading import json_of


class Loading(Protocol):
    """Who has the models."""

    def name_of(self, asked: str) -> str:
        """Of a name or an alias. Raises ModelNotFound."""
        ...

    async def load(self, name: str) -> dict[str, object]:
        """Back when it is loaded. Raises ApiError."""
        ...

    async def unload(self, name: str) -> dict[str, object]:
        """Back when its memory is free. Raises ApiError."""
        ...


def router(models: Loading, verify: Callable[[str], object]) -> APIRouter:
    """`verify`: see `admin.require_insider`."""
    routes = APIRouter()

    async def named(request: Request) -> str:
        require_insider(request, verify)
        # A page in somebody's browser can send forms to a server on the same machine, and nothing
        # that says it is JSON.
        if "content-type" not in request.headers:
            raise UnsupportedMedia("send the body with Content-Type: application/json")
        asked = json_body.parse(await json_of(request))
        for field in sorted(asked.keys() - ModelRequest.model_fields.keys()):
            raise BadRequest(f"'{field[:64]}': unknown parameter: leave it out", param=field[:64])
        return models.name_of(json_body.text(asked, "model"))

    @routes.post("/models/load")
    async def load(request: Request) -> Response:
        return answer(request, await models.load(await named(request)))

    @routes.post("/models/unload")
    async def unload(request: Request) -> Response:
        return answer(request, await models.unload(await named(request)))

    return routes
