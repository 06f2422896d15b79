"""Limits of keys and models at the assembled gateway, with a clock of the test's own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from pippin_edge.clock import Clock
from support.eventually import eventually
from support.gateway import Running, key_object, model_object, new_key, running_gateway
from support.upstreams import DONE, END, STREAM_HEAD, Turn, chunk, event, upstream

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


async def ask(gateway: Running, **more: Any) -> httpx.Response:
    async with gateway.client() as http:
        return await http.post(CHAT, json={"model": "qwen", **more})


def limit(gateway: Running, **limits: int) -> None:
    """The key's, instead of those it had."""
    gateway.store.put("apikeys", key_object(gateway.key, limits=limits))
    gateway.store.refresh()


def left(answer: httpx.Response, what: str = "tokens") -> int:
    return int(answer.headers[f"x-ratelimit-remaining-{what}"])


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
    labels = {"owner": "team-a/app", "kind": "rpm"}
    assert limited.metric("pippin_gateway_limit_refusals_total", **labels) == 2
    labels = {"model": "team-a/qwen", "key": "team-a/app", "code": "429"}
    assert limited.metric("pippin_gateway_requests_total", **labels) == 2


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
    limit(limited, rpm=3)
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


async def test_tokens_are_taken_before_the_answer_and_corrected_after_it(limited: Running) -> None:
    """The replica counts 7 + 2 for an answer that might have had 50."""
    limit(limited, tpm=100)
    first = await ask(limited, max_tokens=50)
    assert 100 - 50 - 20 < left(first) < 100 - 50
    second = await ask(limited, max_tokens=50)
    assert abs(left(first) - 9 - left(second)) <= 5, "nine tokens less, up to the guessed prompt"
    refused = await ask(limited, max_tokens=100)
    assert refused.status_code == 429
    assert "100 tokens a minute" in refused.json()["error"]["message"]
    assert left(refused) == 100 - 2 * 9
    labels = {"owner": "team-a/app", "kind": "tpm"}
    assert limited.metric("pippin_gateway_limit_refusals_total", **labels) == 1


async def test_who_asks_for_more_than_there_ever_is_gets_it_once(limited: Running) -> None:
    limit(limited, tpm=20)
    assert (await ask(limited, max_tokens=5000)).status_code == 200
    assert (await ask(limited, max_tokens=5000)).status_code == 429


async def test_the_tokens_of_a_day_come_back_at_midnight(limited: Running) -> None:
    limit(limited, tokensPerDay=10)
    assert (await ask(limited, max_tokens=1)).status_code == 200
    refused = await ask(limited, max_tokens=5)
    assert refused.status_code == 429
    until_midnight = 86_400 - time.time() % 86_400
    assert abs(int(refused.headers["retry-after"]) - until_midnight) < 5
    assert "a day (UTC)" in refused.json()["error"]["message"]


async def test_only_so_many_requests_are_under_way(gateway: Running) -> None:
    end = asyncio.Event()

    async def waits(turn: Turn) -> None:
        await turn.send(STREAM_HEAD, event("Hi"))
        await end.wait()
        await turn.send(DONE, END)

    limit(gateway, concurrency=1)
    async with upstream(waits) as replica:
        gateway.route(replica.port)
        first = asyncio.create_task(ask(gateway, stream=True))
        await eventually(lambda: len(replica.requests) == 1)
        refused = await ask(gateway)
        assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
        assert "1 requests under way" in refused.json()["error"]["message"]
        end.set()
        assert (await first).text.endswith("[DONE]\n\n")
        assert (await ask(gateway, stream=True)).status_code == 200
    assert len(replica.requests) == 2


async def test_a_replica_that_fails_costs_no_tokens_and_no_place(gateway: Running) -> None:
    limit(gateway, tpm=1000, concurrency=1)
    for _ in range(3):
        failed = await ask(gateway, max_tokens=100)
        assert failed.status_code == 503
    assert left(failed) > 850, "what it had taken came back each time"


async def test_a_models_limits_are_its_callers_together(limited: Running, moment: Time) -> None:
    other = new_key()
    limit(limited)
    limited.store.put("apikeys", key_object(other, "other"))
    limited.store.put("modeldeployments", model_object(limits={"rpm": 2, "tpm": 1000}))
    limited.store.refresh()
    assert (await ask(limited)).status_code == 200
    async with limited.client(key=other.key) as http:
        second = await http.post(CHAT, json={"model": "qwen"})
        third = await http.post(CHAT, json={"model": "qwen"})
    assert (second.status_code, third.status_code) == (200, 429)
    assert "all callers of this model together" in third.json()["error"]["message"]
    assert "x-ratelimit-remaining-requests" not in second.headers
    labels = {"owner": "team-a/qwen", "kind": "rpm"}
    assert limited.metric("pippin_gateway_limit_refusals_total", **labels) == 1
    moment.moved += 60
    assert (await ask(limited)).status_code == 200


async def test_a_fallback_has_limits_of_its_own(gateway: Running) -> None:
    """Two requests a minute that it answers in the other's place; then it is passed over too."""
    gateway.store.put("modeldeployments", model_object(fallbacks=["spare"]))
    gateway.store.put("modeldeployments", model_object("spare", limits={"rpm": 2}))
    async with upstream() as replica:
        gateway.route(replica.port, model="spare")
        codes = [(await ask(gateway)).status_code for _ in range(3)]
    assert codes == [200, 200, 503]


USAGE = b'{"prompt_tokens":30,"completion_tokens":12,"total_tokens":42}'


async def told(turn: Turn) -> None:
    """As OpenAI does when it is asked for the usage, and only then."""
    asked = b'"include_usage":true' in turn.request.body.replace(b" ", b"")
    none_yet = {"usage": None} if asked else {}
    await turn.send(STREAM_HEAD, event("one", **none_yet), event(None, **none_yet))
    if asked:
        await turn.send(chunk(b'data: {"choices":[],"usage":' + USAGE + b"}\n\n"))
    await turn.send(DONE, END)


@pytest.mark.parametrize(
    "options", [{}, {"stream_options": None}, {"stream_options": {"include_usage": False}}]
)
async def test_a_streams_tokens_are_counted_and_shown_only_to_who_asked(
    gateway: Running, options: dict[str, Any]
) -> None:
    limit(gateway, tpm=1000)
    async with upstream(told) as replica:
        gateway.route(replica.port)
        unasked = await ask(gateway, stream=True, **options)
        assert "usage" not in unasked.text and unasked.text.endswith("data: [DONE]\n\n")
        assert unasked.text.count("data: ") == 3
        asked = await ask(gateway, stream=True, stream_options={"include_usage": True})
        assert asked.text.count("data: ") == 4 and '"prompt_tokens":30' in asked.text
    refused = await ask(gateway, max_tokens=5000)
    assert left(refused) > 1000 - 2 * 42 - 300
    labels = {"model": "team-a/qwen", "key": "team-a/app", "kind": "completion"}
    assert gateway.metric("pippin_gateway_tokens_total", **labels) == 24


async def test_wrong_stream_options_are_the_replicas_to_refuse(gateway: Running) -> None:
    async with upstream(told) as replica:
        gateway.route(replica.port)
        await ask(gateway, stream=True, stream_options="yes")
        assert b'"stream_options":"yes"' in replica.requests[0].body


async def test_a_client_that_leaves_pays_for_what_it_got(gateway: Running) -> None:
    async def endless(turn: Turn) -> None:
        await turn.send(STREAM_HEAD)
        for _ in range(20):
            await turn.send(event("word "))
        await turn.hang()

    limit(gateway, tpm=10_000)
    async with upstream(endless) as replica, gateway.client() as http:
        gateway.route(replica.port)
        body = {"model": "qwen", "stream": True}
        async with http.stream("POST", CHAT, json=body) as answer:
            async for line in answer.aiter_lines():
                if line:
                    break
            await eventually(lambda: gateway.gateway.health.in_flight() == 1)
        await eventually(lambda: gateway.gateway.health.in_flight() == 0)
        gateway.route()
        after = await ask(gateway, max_tokens=1)
    # Up to twenty events and the guessed prompts; not the 256 tokens that were taken.
    assert 10_000 - 80 < left(after) < 10_000 - 10
