"""POST /v1/completions."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ..openai.common import read
from ..openai.completions import CompletionRequest
from .reading import Desk


def router(desk: Desk) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/completions")
    async def completions(request: Request) -> Response:
        desk.must_do("completion")
        asked = read(CompletionRequest, await desk.body(request))
        desk.kitchen.refuse_unless_ready()
        return desk.answer(request, "completion", asked, asked.one_prompt())

    return routes
