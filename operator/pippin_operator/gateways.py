"""The gateways' own HTTP, as their administrator: what keys have used. The only importer of it."""

from __future__ import annotations

from types import TracebackType

import aiohttp
from pydantic import ValidationError

from pippin_contract import usage
from pippin_contract.endpoint import Endpoint
from pippin_contract.wire import USAGE_PATH

from .errors import OperatorError

#: Seconds for an answer, and its bytes at most: ten thousand keys with some models each.
_TIMEOUT = aiohttp.ClientTimeout(total=20, connect=3)
_MOST_BYTES = 64 * 1024 * 1024


class Silent(OperatorError):
    """A gateway did not tell; the text says why."""


class Gateways:
    """One session for a round of questions."""

    def __init__(self, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT, headers=headers)

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
        try:
            url = f"{where.url}{USAGE_PATH}"
            async with self._session.get(url, allow_redirects=False) as answer:
                body = await answer.content.read(_MOST_BYTES)
                if answer.status != 200:
                    raise Silent(f"it answered with {answer.status}")
                return usage.load(body)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise Silent(f"it cannot be reached: {type(error).__name__}") from error
        except ValidationError as error:
            raise Silent("its answer is none that this version understands") from error
