"""The gateway is tested on the event loop that it runs on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop

from support.gateway import Running, running_gateway


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], object]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Running]:
    """Short times, so that what hangs is late soon."""
    async with running_gateway(
        tmp_path,
        connect_timeout_seconds=0.5,
        first_token_timeout_seconds=0.5,
        queue_timeout_seconds=0,
        stream_idle_timeout_seconds=0.5,
        total_timeout_seconds=3,
    ) as running:
        yield running
