"""A JSON answer with the request's id in it."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from starlette.requests import Request
from starlette.responses import Response


def answer(request: Request, content: Mapping[str, object], status: int = 200) -> Response:
    body = orjson.dumps({**content, "request_id": request.scope["state"]["request_id"]})
    return Response(body, status_code=status, media_type="application/json")
