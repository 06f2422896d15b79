"""What the agent remembers of ConfigMaps and Secrets, and what it asks for again."""

from __future__ import annotations

from typing import Any

import pytest

from pippin_node.client import ApiError
from pippin_node.sources import Sources


class Server:
    """One Secret; None: there is none."""

    def __init__(self, secret: dict[str, Any] | None) -> None:
        self.secret = secret
        self.asked = 0

    async def get(self, path: str) -> dict[str, Any]:
        assert path == "/api/v1/namespaces/ns/secrets/key"
        self.asked += 1
        if self.secret is None:
            raise ApiError(404, "NotFound", "no such secret")
        return self.secret


async def read(sources: Sources) -> Any:
    return await sources.object("ns", "secret", "key")


async def test_what_was_read_is_good_for_a_while():
    server: Any = Server({"data": {"a": "MQ=="}})
    sources = Sources(server, max_age=60)
    assert await read(sources) == await read(sources) == server.secret
    assert server.asked == 1


@pytest.mark.parametrize("before", [None, {"metadata": {}}, {"data": {}}])
async def test_what_is_absent_or_empty_is_asked_for_again(before: dict[str, Any] | None):
    server: Any = Server(before)
    sources = Sources(server, max_age=60)
    assert await read(sources) == before
    server.secret = {"data": {"a": "MQ=="}}
    assert await read(sources) == server.secret
