"""GET /openapi.json: what this server serves, with its model and its engine, and nothing else.

A route that is not told of here keeps the server from starting; the refusals of what a model does
not do are not told of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import orjson
from fastapi import APIRouter
from starlette.responses import Response
from starlette.routing import Route

from pippin_contract import __version__
from pippin_contract.wire import PICTURES_PATH

from ..openai import described
from ..openai.described import REFERENCE

PATH = "/openapi.json"
_EVENTS = "text/event-stream"


class Told(NamedTuple):
    """Of one path: its answers by media type, each with the fields that it has at least, and the
    statuses beside 200."""

    summary: str
    answers: dict[str, tuple[str, ...]]
    also: tuple[int, ...] = ()


def _json(*fields: str) -> dict[str, tuple[str, ...]]:
    return {"application/json": (*fields, "request_id")}


#: What may become of a request that a model is to answer.
_ASKED = (400, 404, 408, 413, 415, 500, 503)
_TEXT: dict[str, tuple[str, ...]] = {"text/plain": ()}
_COMPLETION = ("id", "object", "created", "model", "choices", "usage")
_PICTURES = ("created", "data", "output_format", "size", "usage")
_HEALTH = ("status", "model_id", "model_status", "models_healthy")

TOLD = {
    "/v1/chat/completions": Told("Answer a chat", _json(*_COMPLETION) | {_EVENTS: ()}, _ASKED),
    "/v1/completions": Told("Go on with a text", _json(*_COMPLETION) | {_EVENTS: ()}, _ASKED),
    "/v1/embeddings": Told(
        "Make vectors of texts", _json("object", "data", "model", "usage"), _ASKED
    ),
    "/v1/images/generations": Told("Make pictures", _json(*_PICTURES), _ASKED),
    "/v1/images/edits": Told("Make pictures from others", _json(*_PICTURES), _ASKED),
    "/v1/audio/transcriptions": Told(
        "Write a recording down",
        _json("text", "usage") | {"text/plain": (), "text/vtt": (), _EVENTS: ()},
        _ASKED,
    ),
    PICTURES_PATH + "{name}": Told(
        "A picture that was asked for by URL", {"image/png": ()}, (404,)
    ),
    "/v1/load_lora_adapter": Told(
        "Serve one adapter more, for insiders", _json("id", "loaded"), (400, 401, 503)
    ),
    "/v1/unload_lora_adapter": Told(
        "Serve an adapter no more, for insiders", _json("id", "loaded"), (400, 401, 404, 503)
    ),
    "/v1/models": Told("What is served", _json("object", "data")),
    "/v1/models/{name}": Told("The same, by a name", _json("id", "object", "task"), (404,)),
    "/v1/queue/stats": Told("Requests under way and waiting", _json("active", "pending")),
    "/v1/metrics": Told(
        "Figures of the last minutes", _json("cache", "latency", "memory") | _TEXT, (400,)
    ),
    "/metrics": Told("For Prometheus", _TEXT),
    "/health": Told("For people and probes", {"application/json": _HEALTH}, (503,)),
    "/ready": Told("For the router", _json("status"), (503,)),
    "/livez": Told("For the kubelet", _json("status"), (503,)),
    "/status": Told("Parts and caches", _json("status")),
    "/internal/diagnostics": Told("Everything, for insiders", _json("status"), (401,)),
    "/internal/echo": Told(
        "Knobs of the echo engine, for insiders", _json("knobs", "requests"), (400, 401)
    ),
    "/models/load": Told(
        "Load a model, of several", _json("model", "status"), (400, 401, 404, 415, 503)
    ),
    "/models/unload": Told(
        "Give a model's memory back", _json("model", "status"), (400, 401, 404, 409, 415)
    ),
    "/internal/drain": Told("Take in nobody any more, for insiders", _json("drained"), (401,)),
    PATH: Told("This", {"application/json": ("openapi", "paths")}, (503,)),
}
#: Of statuses beside 200 that are no refusal: the same answer as with 200.
_SAME = frozenset({"/health", "/ready", "/livez"})

_ERROR = {
    "type": "object",
    "required": ["error", "request_id"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        },
        "request_id": {"type": "string"},
    },
}


#: A path's `requestBody`, whose schemas are put into the dict; None: the engine does not do it.
Request = Callable[[str, dict[str, Any]], dict[str, Any] | None]


class Described:
    """Made of the routes that there are. `open_paths` need no key; None: no path does."""

    def __init__(self, request: Request, open_paths: frozenset[str] | None) -> None:
        self._request = request
        self._open = open_paths
        self._schemas: dict[str, Any] = {"Error": _ERROR}

    def document(self, routes: Iterable[Route]) -> dict[str, Any]:
        paths: dict[str, dict[str, Any]] = {}
        for route in routes:
            if operation := self._operation(route.path_format):
                methods = paths.setdefault(route.path_format, {})
                methods |= {method.lower(): operation for method in route.methods or ()}
        components: dict[str, Any] = {"schemas": self._schemas}
        if self._open is not None:
            components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        info = {"title": "Pippin server", "version": __version__}
        return {"openapi": "3.1.0", "info": info, "paths": paths, "components": components}

    def _operation(self, path: str) -> dict[str, Any]:
        told = TOLD[path]
        found: dict[str, Any] = {
            "summary": told.summary,
            "responses": {str(code): body for code, body in self._answers(path, told)},
        }
        if path in described.REQUESTS:
            body = self._request(path, self._schemas)
            if body is None:
                return {}
            found["requestBody"] = body
        if "{name}" in path:
            name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
            found["parameters"] = [name]
        if self._closed(path):
            found["security"] = [{"key": []}]
        return found

    def _answers(self, path: str, told: Told) -> Iterable[tuple[int, dict[str, Any]]]:
        good = {kind: {"schema": _schema(kind, fields)} for kind, fields in told.answers.items()}
        yield 200, {"description": told.summary, "content": good}
        refused = {"application/json": {"schema": {"$ref": REFERENCE + "Error"}}}
        for code in sorted({*told.also, *((401,) if self._closed(path) else ())}):
            same = path in _SAME
            words = "The same, and it is not well" if same else "OpenAI's envelope of an error"
            yield code, {"description": words, "content": good if same else refused}

    def _closed(self, path: str) -> bool:
        asks = self._open is not None and path not in self._open
        return asks and not path.startswith(PICTURES_PATH)


def _schema(kind: str, fields: tuple[str, ...]) -> dict[str, Any]:
    if kind != "application/json":
        return {"type": "string"}
    return {"type": "object", "required": list(fields)}


def _shown(routers: Iterable[APIRouter]) -> list[Route]:
    routes = [route for router in routers for route in router.routes]
    return [one for one in routes if isinstance(one, Route) and one.include_in_schema]


def router(routers: Iterable[APIRouter], described_by: Callable[[], Described]) -> APIRouter:
    """The document, of these routers and of itself; made once, at the first request.

    Raises LookupError for a route that nobody has told of.
    """
    routes = APIRouter()
    made: list[bytes] = []

    @routes.get(PATH)
    async def openapi() -> Response:
        if not made:
            made.append(orjson.dumps(described_by().document(shown)))
        return Response(made[0], media_type="application/json")

    shown = _shown([*routers, routes])
    untold = {route.path_format for route in shown} - TOLD.keys()
    if untold:
        raise LookupError(f"not in TOLD: {', '.join(sorted(untold))}")
    return routes
