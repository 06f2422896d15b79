"""POST /v1/chat/completions."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ..openai.chat import ChatRequest
from ..openai.common import read
from . import reading
from .reading import Counter


def router(counter: Counter) -> APIRouter:
    routes = APIRouter()

    async def chat(request: Request) -> Response:
        counter.must_do("chat")
        asked = read(ChatRequest, await counter.body(request), counter.engine.honours)
        counter.kitchen.refuse_unless_ready()
        return counter.answer(request, "chat", asked, (asked.prompt(),))

    reading.add(routes, "/v1/chat/completions", chat)
    return routes
