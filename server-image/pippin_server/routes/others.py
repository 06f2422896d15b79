"""The paths of what the model that is served here does not do: said in the API's own words."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from pippin_edge import json_body, multipart
from pippin_edge.errors import BadRequest

from .reading import Desk

#: Everything that a model may do, by how it is asked.
JSON_PATHS = frozenset(
    {"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/images/generations"}
)
FORM_PATHS = frozenset({"/v1/images/edits", "/v1/audio/transcriptions"})


def router(desk: Desk, served: Iterable[str]) -> APIRouter:
    """All paths but those that are served."""
    routes = APIRouter()

    async def refuse(request: Request) -> Response:
        path = request.url.path
        if path in FORM_PATHS:
            form = await multipart.read(request.scope, request.receive)
            name = form.text(form.only("model"))
        else:
            name = json_body.text(json_body.parse(await desk.raw_body(request)), "model")
        desk.check_model(name)
        raise BadRequest(f"this model does {desk.config.model.task}, not {path}", param="model")

    for path in sorted((JSON_PATHS | FORM_PATHS) - set(served)):
        routes.add_api_route(path, refuse, methods=["POST"], include_in_schema=False)
    return routes
