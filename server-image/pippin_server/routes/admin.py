"""POST /internal/drain: for the preStop hook, and for the gateway."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from pippin_edge.authenticate import token

from ..stand import House
from .json import answer


def router(house: House, verify: Callable[[str], object], *, drain_timeout: float) -> APIRouter:
    """`verify` raises Unauthenticated; asked only when the caller is not on this machine."""
    routes = APIRouter()

    @routes.post("/internal/drain")
    async def drain(request: Request) -> Response:
        require_insider(request, verify)
        drained = await house.drain(drain_timeout)
        return answer(request, {"drained": drained, "active": house.queue()["active"]})

    return routes


def require_insider(request: Request, verify: Callable[[str], object]) -> None:
    """Who is not on this machine shows a token, of which `verify` raises Unauthenticated."""
    if not _is_local(request):
        verify(token(request.scope["headers"]))


def _is_local(request: Request) -> bool:
    if request.client is None:
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
