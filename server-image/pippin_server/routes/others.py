"""The paths of what the model that is served here does not do: said in the API's own words."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from pippin_edge import json_body
from pippin_edge.errors import BadRequest

from .reading import Desk


def router(desk: Desk, paths: Iterable[str]) -> APIRouter:
    routes = APIRouter()

    async def refuse(request: Request) -> Response:
        body = json_body.parse(await desk.raw_body(request))
        desk.check_model(json_body.text(body, "model"))
        path = request.url.path
        raise BadRequest(f"this model does {desk.config.model.task}, not {path}", param="model")

    for path in paths:
        routes.add_api_route(path, refuse, methods=["POST"])
    return routes
