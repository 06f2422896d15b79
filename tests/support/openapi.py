"""Holds a server to its own description."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]  # it brings no types

from .servers import Running

#: Of every server with the engine echo, with a request that is answered.
COMMON: dict[str, dict[str, Any]] = {
    "/v1/models": {},
    "/v1/models/{name}": {"name": "echo"},
    "/v1/queue/stats": {},
    "/v1/metrics": {},
    "/metrics": {},
    "/health": {},
    "/ready": {},
    "/livez": {},
    "/status": {},
    "/internal/diagnostics": {},
    "/internal/echo": {"json": {}},
    "/internal/drain": {},
    "/openapi.json": {},
}


WRONG: list[dict[str, Any]] = [{"json": {}}, {"content": b"x"}, {"files": {"x": b"x"}}]


async def described(server: Running) -> dict[str, Any]:
    found: dict[str, Any] = (await server.get("/openapi.json")).json()
    return found


def valid(document: dict[str, Any], schema: dict[str, Any], value: object) -> None:
    """Raises jsonschema.ValidationError."""
    whole = {**schema, "components": document["components"]}
    jsonschema.Draft202012Validator(whole).validate(value)


async def does_as_described(server: Running, own: Mapping[str, Any], key: str = "") -> None:
    """All that is described is answered as described, rightly and wrongly asked. `own`: paths of
    this server's model, each with httpx' words for a good request; a drain is left out."""
    document = await described(server)
    asked = {**COMMON, **own}
    assert document["paths"].keys() == asked.keys()
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with server.client(headers=headers) as client, server.client() as nobody:
        for path, method, operation in _operations(document):
            more = dict(asked[path])
            url = path.replace("{name}", more.pop("name", ""))
            if path == "/internal/drain":
                continue
            answer = await client.request(method, url, **more)
            assert answer.status_code == 200, (path, answer.text)
            _matches(document, operation, answer)
            for wrong in WRONG:
                answer = await client.request(method, url, **wrong)
                _matches(document, operation, answer)
            missing = await client.request(method, path.replace("{name}", "missing"))
            _matches(document, operation, missing)
            stranger = await nobody.request(method, url, **more)
            assert (stranger.status_code == 401) == ("security" in operation), path
            _matches(document, operation, stranger)


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield path, method, operation


def _matches(document: dict[str, Any], operation: dict[str, Any], answer: httpx.Response) -> None:
    said = operation["responses"].get(str(answer.status_code))
    assert said is not None, (answer.request.url, answer.status_code, answer.text)
    kind = answer.headers["content-type"].partition(";")[0]
    assert kind in said["content"], (answer.request.url, kind)
    if kind == "application/json":
        valid(document, said["content"][kind]["schema"], answer.json())
