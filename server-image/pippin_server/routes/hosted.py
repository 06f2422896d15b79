"""The OpenAI paths of an engine that brings its own application."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from pippin_edge import json_body
from pippin_edge.errors import BadRequest

from ..answering import Kitchen
from ..engines.base import Host
from ..hosted import Errand, HostedAnswer
from . import reading
from .reading import Desk

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
#: Fields of OpenAI's that ask nothing of an answer, so that no engine needs to know them.
_IGNORED = frozenset(
    {"user", "safety_identifier", "metadata", "prompt_cache_key", "service_tier", "store"}
)


def router(desk: Desk, kitchen: Kitchen, host: Host) -> APIRouter:
    routes = APIRouter()

    async def answer(request: Request) -> Response:
        raw = await desk.raw_body(request)
        body = json_body.parse(raw)
        named = desk.check_model(json_body.text(body, "model"))
        if named.adapter and named.served != body["model"]:
            raw = orjson.dumps({**body, "model": named.served})  # the engine knows one name of it
        kitchen.refuse_unless_ready()
        path = request.url.path
        known = host.fields(path)
        if known is None:
            raise BadRequest(f"this model does {desk.config.model.task}, not {path}", param="model")
        _check_fields(body, known)
        errand = Errand(path, raw, request.scope["state"]["request_id"])
        return HostedAnswer(kitchen, host, errand)

    for path in PATHS:
        reading.add(routes, path, answer)
    return routes


def _check_fields(body: dict[str, Any], known: frozenset[str]) -> None:
    """Nothing that is asked for is silently ignored."""
    for name in body.keys() - known - _IGNORED:
        raise BadRequest(
            f"'{name[:64]}': unknown parameter: leave it out",
            param=name[:64],
            code="unknown_parameter",
        )
