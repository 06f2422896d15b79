"""Paths that only this machine's callers, and holders of a token, may ask."""

from __future__ import annotations

import time

import httpx
import pytest

from pippin_edge.clock import SYSTEM
from pippin_edge.errors import Unauthenticated
from pippin_server import settings as told
from pippin_server.app import Surroundings, create_app
from pippin_server.engines.echo import EchoEngine
from support.servers import echo_config


def verify(token: str) -> object:
    if token != "right":
        raise Unauthenticated("a wrong key")
    return token


def a_client(address: str, *, with_keys: bool) -> httpx.AsyncClient:
    config = echo_config()
    engine = EchoEngine(config.echo, context_length=100, clock=time.monotonic)
    around = Surroundings(verify if with_keys else None, SYSTEM, write_access_line=len)
    server = create_app(told.load({"engine": "echo"}), config, engine, around)
    transport = httpx.ASGITransport(server.app, client=(address, 1234))
    return httpx.AsyncClient(transport=transport, base_url="http://server")


@pytest.mark.parametrize("path", ["/internal/echo", "/internal/diagnostics"])
@pytest.mark.parametrize("with_keys", [True, False])
async def test_who_is_not_on_this_machine_shows_a_token(path: str, with_keys: bool) -> None:
    right = {"authorization": "Bearer right"}
    async with a_client("203.0.113.7", with_keys=with_keys) as client:
        assert (await client.get(path)).status_code == 401
        assert (await client.get(path, headers=right)).status_code == (200 if with_keys else 401)
    async with a_client("127.0.0.1", with_keys=with_keys) as client:
        assert (await client.get(path)).status_code == 200


async def test_nobody_else_turns_the_echo_engines_knobs() -> None:
    async with a_client("203.0.113.7", with_keys=True) as client:
        refused = await client.post("/internal/echo", json={"crashAfter": 1})
        assert refused.status_code == 401
        wrong = {"authorization": "Bearer wrong"}
        assert (await client.post("/internal/echo", json={}, headers=wrong)).status_code == 401
