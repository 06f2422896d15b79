"""GET and POST /internal/echo: the knobs of the echo engine, while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from pippin_contract.serverconfig import EchoConfig
from pippin_edge import json_body
from pippin_edge.errors import BadRequest

from ..engines.echo import Echo
from ..lifecycle import Lifecycle
from .admin import require_insider
from .json import answer

log = structlog.get_logger("pippin.server")

_NAMES = {field.alias or name: name for name, field in EchoConfig.model_fields.items()}


class Knobs:
    """What is set, and the loading that was asked for with it."""

    def __init__(self, engine: Echo, lifecycle: Lifecycle) -> None:
        self._engine = engine
        self._lifecycle = lifecycle
        self._loading: asyncio.Task[None] | None = None

    def told(self) -> dict[str, object]:
        knobs = self._engine.knobs.model_dump(by_alias=True)
        return {"knobs": knobs, "requests": self._engine.requests}

    def turn(self, given: dict[str, Any]) -> None:
        """Those that are given; the others stay. Raises BadRequest, and then none was changed."""
        knobs = _changed(self._engine.knobs, given)
        log.warning("echo.knobs", **knobs.model_dump())
        self._engine.turn(knobs)
        if "loadSeconds" in given and knobs.load_seconds and self._loading is None:
            self._loading = asyncio.create_task(self._load())

    async def _load(self) -> None:
        self._lifecycle.loads_again()
        self._lifecycle.became_ready(await self._engine.load(None, self._lifecycle.advance))
        self._loading = None


def _changed(knobs: EchoConfig, given: dict[str, Any]) -> EchoConfig:
    for name in given:
        if name not in _NAMES:
            raise BadRequest(f"'{name}' is no knob: see GET /internal/echo", param=name)
    if given.get("dimensions", knobs.dimensions) != knobs.dimensions:
        raise BadRequest("'dimensions' cannot change while it runs", param="dimensions")
    try:
        return EchoConfig.model_validate({**knobs.model_dump(by_alias=True), **given}, strict=True)
    except ValidationError as error:
        (problem, *_) = error.errors(include_url=False, include_input=False)
        name = str(problem["loc"][0])
        raise BadRequest(f"'{name}': {problem['msg']}", param=name) from error


def router(engine: Echo, lifecycle: Lifecycle, verify: Callable[[str], object]) -> APIRouter:
    """`verify`: see `admin.require_insider`."""
    routes = APIRouter()
    knobs = Knobs(engine, lifecycle)

    @routes.get("/internal/echo")
    async def shown(request: Request) -> Response:
        require_insider(request, verify)
        return answer(request, knobs.told())

    @routes.post("/internal/echo")
    async def turned(request: Request) -> Response:
        require_insider(request, verify)
        knobs.turn(json_body.parse(await json_body.read(request.receive)))
        return answer(request, knobs.told())

    return routes
