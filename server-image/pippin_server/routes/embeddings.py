"""POST /v1/embeddings."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from pippin_edge import json_body

from ..answering import Kitchen
from ..embedding import EmbeddingAnswer, Texts, check_dimensions
from ..engines.base import Embedder
from ..openai.embeddings import Form, read
from . import reading
from .reading import Desk


def router(desk: Desk, kitchen: Kitchen, engine: Embedder) -> APIRouter:
    routes = APIRouter()

    async def embeddings(request: Request) -> Response:
        asked = read(json_body.parse(await desk.raw_body(request)))
        desk.check_model(asked.model)
        inputs = asked.inputs()
        kitchen.refuse_unless_ready()
        check_dimensions(asked.dimensions, engine)
        form = Form(
            model=desk.config.served_name,
            request_id=request.scope["state"]["request_id"],
            encoding=asked.encoding_format or "float",
            dimensions=asked.dimensions,
        )
        return EmbeddingAnswer(kitchen, engine, Texts(asked, inputs, form))

    reading.add(routes, "/v1/embeddings", embeddings)
    return routes
