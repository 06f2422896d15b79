"""Requests per minute of a key, at the assembled gateway, with a clock of the test's own."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import openai
import pytest

from pippin_edge.clock import Clock
from support.gateway import Running, key_object, new_key, running_gateway
from support.upstreams import upstream

CHAT = "/v1/chat/completions"


class Time:
    """The real one, and how far the test moved it."""

    def __init__(self) -> None:
        self.moved = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.moved


@pytest.fixture
def moment() -> Time:
    return Time()


@pytest.fixture
async def limited(tmp_path: Path, moment: Time) -> AsyncIterator[Running]:
    async with (
        upstream() as replica,
        running_gateway(tmp_path, clock=Clock(monotonic=moment)) as running,
    ):
        running.store.put("apikeys", key_object(running.key, limits={"rpm": 2}))
        running.route(replica.port)
        yield running


async def ask(gateway: Running) -> httpx.Response:
    async with gateway.client() as http:
        return await http.post(CHAT, json={"model": "qwen"})


async def test_the_headers_count_down_and_the_next_one_waits_its_turn(
    limited: Running, moment: Time
) -> None:
    first = await ask(limited)
    moment.moved += 20
    second = await ask(limited)
    assert [got.headers["x-ratelimit-remaining-requests"] for got in (first, second)] == ["1", "0"]
    assert second.headers["x-ratelimit-limit"] == "2"
    assert abs(int(second.headers["x-ratelimit-reset"]) - time.time() - 60) < 3
    refused = await ask(limited)
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limited"
    wait = int(refused.headers["retry-after"])
    assert 38 <= wait <= 40
    moment.moved += wait
    assert (await ask(limited)).status_code == 200
    assert (await ask(limited)).status_code == 429
    labels = {"key": "team-a/app", "kind": "rpm"}
    assert limited.metric("pippin_gateway_limit_refusals_total", **labels) == 2
    assert (
        limited.metric("pippin_gateway_requests_total", model="", key="team-a/app", code="429") == 2
    )


async def test_listing_is_free_and_another_key_has_its_own_window(limited: Running) -> None:
    other = new_key()
    limited.store.put("apikeys", key_object(other, "other", limits={"rpm": 1}))
    limited.store.refresh()
    for _ in range(2):
        assert (await ask(limited)).status_code == 200
    async with limited.client() as http:
        assert (await http.get("/v1/models")).status_code == 200
        assert (await http.post(CHAT, json={"model": "qwen"})).status_code == 429
    async with limited.client(key=other.key) as http:
        assert (await http.post(CHAT, json={"model": "qwen"})).status_code == 200


async def test_a_raised_limit_acts_on_the_next_request(limited: Running) -> None:
    for expected in (200, 200, 429):
        assert (await ask(limited)).status_code == expected
    limited.store.put("apikeys", key_object(limited.key, limits={"rpm": 3}))
    limited.store.refresh()
    assert (await ask(limited)).status_code == 200


async def test_the_official_clients_own_retry_gets_through(limited: Running, moment: Time) -> None:
    for _ in range(2):
        await ask(limited)
    moment.moved += 59
    assert (await ask(limited)).headers["retry-after"] == "1"
    client = openai.AsyncOpenAI(
        base_url=limited.url + "/v1", api_key=limited.key.key, max_retries=1
    )
    async with client as ai:
        got = await ai.chat.completions.with_raw_response.create(model="qwen", messages=[])
    assert got.status_code == 200
