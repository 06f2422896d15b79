"""POST /v1/completions."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ..openai.common import read
from ..openai.completions import CompletionRequest
from . import reading
from .reading import Counter


def router(counter: Counter) -> APIRouter:
    routes = APIRouter()

    async def completions(request: Request) -> Response:
        counter.must_do("completion")
        asked = read(CompletionRequest, await counter.body(request), counter.engine.honours)
        counter.kitchen.refuse_unless_ready()
        return counter.answer(request, "completion", asked, asked.prompts())

    reading.add(routes, "/v1/completions", completions)
    return routes
