"""A request's body, read whole and parsed once, strictly."""

from __future__ import annotations

from typing import Any

import orjson

from .asgi import Receive
from .errors import BadRequest, ClientGone


async def read(receive: Receive) -> bytes:
    """All of the body. Put a BodyLimit around: nothing here caps it."""
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")
        return body
    parts = []
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGone
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)
        message = await receive()


def parse(body: bytes) -> dict[str, Any]:
    """A JSON object in UTF-8: no NaN, no UTF-16, no lone surrogates, at most 1024 deep."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(
            f"the request body is not valid JSON: {error.msg} at line {error.lineno}, "
            f"column {error.colno}",
            code="invalid_json",
        ) from error
    if not isinstance(found, dict):
        raise BadRequest("the request body must be a JSON object", code="invalid_json")
    return found


def text(body: dict[str, Any], field: str) -> str:
    """A field that must be a string with something in it."""
    value = body.get(field)
    if isinstance(value, str) and value:
        return value
    raise BadRequest(f"'{field}' must be given, as a string", param=field)
