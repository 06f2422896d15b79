"""The gateways' own HTTP, as their administrator: what keys have used, how much models are asked
for. The only importer of it."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

import aiohttp
from pydantic import ValidationError

from pippin_contract import demand, endpoint, usage, wire
from pippin_contract.endpoint import Endpoint

from .api.resources import Manifest
from .errors import OperatorError

Report = TypeVar("Report")

#: Seconds for an answer, and its bytes at most: ten thousand keys with some models each.
PATIENT = 20.0
_CONNECT = 3.0
_MOST_BYTES = 64 * 1024 * 1024


class Silent(OperatorError):
    """A gateway did not tell; the text says why."""


class Gateways:
    """One session for a round of questions, each to be answered within so many seconds."""

    def __init__(self, token: str, within: float = PATIENT) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        limits = aiohttp.ClientTimeout(total=within, connect=min(_CONNECT, within))
        self._session = aiohttp.ClientSession(timeout=limits, headers=headers)

    async def __aenter__(self) -> Gateways:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def usage(self, where: Endpoint) -> usage.UsageReport:
        """Raises Silent."""
        return _understood(usage.load, await self._read(f"{where.url}{wire.USAGE_PATH}"))

    async def demand(self, where: Endpoint) -> demand.DemandReport:
        """Raises Silent."""
        return _understood(demand.load, await self._read(f"{where.url}{wire.DEMAND_PATH}"))

    async def _read(self, url: str) -> bytes:
        try:
            async with self._session.get(url, allow_redirects=False) as answer:
                if answer.status != 200:
                    raise Silent(f"it answered with {answer.status}")
                return await _whole(answer.content)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise Silent(f"it cannot be reached: {type(error).__name__}") from error


def where(pod: Manifest) -> Endpoint | None:
    """How a gateway's Pod is asked; None while it is not Ready. Raises Silent."""
    conditions: list[dict[str, Any]] = (pod.get("status") or {}).get("conditions") or []
    if not any(one["type"] == "Ready" and one["status"] == "True" for one in conditions):
        return None
    try:
        found = endpoint.of_pod(pod, wire.GATEWAY_PORT)
    except ValueError as error:
        raise Silent(str(error)) from error
    if found is not None and found.pin:
        raise Silent("it runs on a machine that is only reached through its agent")
    return found


async def _whole(content: aiohttp.StreamReader) -> bytes:
    """All parts: one read returns what has come by then."""
    body = bytearray()
    async for part in content.iter_any():
        body += part
        if len(body) > _MOST_BYTES:
            raise Silent(f"its answer has more than {_MOST_BYTES} bytes")
    return bytes(body)


def _understood(load: Callable[[bytes], Report], body: bytes) -> Report:
    try:
        return load(body)
    except ValidationError as error:
        raise Silent("its answer is none that this version understands") from error
