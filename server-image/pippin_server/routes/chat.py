"""POST /v1/chat/completions."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ..openai.chat import ChatRequest
from ..openai.common import read
from .reading import Desk


def router(desk: Desk) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        desk.must_do("chat")
        asked = read(ChatRequest, await desk.body(request))
        desk.kitchen.refuse_unless_ready()
        return desk.answer(request, "chat", asked, asked.prompt())

    return routes
