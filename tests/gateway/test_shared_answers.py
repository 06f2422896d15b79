"""Answers that gateways keep for each other, in a real Redis that is also full, stopped, killed."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from pippin_gateway.answers import SharedAnswers, Stored
from pippin_gateway.catalog.model import CachePolicy
from support.eventually import eventually
from support.gateway import ADMIN_TOKEN, Running, model_object, running_gateway
from support.redis import Redis
from support.upstreams import Turn, answer, good, upstream

CHAT, HELD = "/v1/chat/completions", "pippin_gateway_response_cache_bytes"
SAID = "what was asked in confidence"
SECRET = b"what all gateways derive, 32 b.."
POLICY = CachePolicy(ttl=60, entries=2)


@asynccontextmanager
async def answers(redis: Redis, gateway: str, key: bytes = SECRET) -> AsyncIterator[SharedAnswers]:
    """As one gateway has them."""
    found = SharedAnswers(redis.address, lambda: key, time.monotonic, gateway=gateway)
    running = asyncio.create_task(found.run())
    try:
        await eventually(lambda: found.redis.up, within=5)
        yield found
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@dataclass
class Pair:
    """Two gateways at one Redis."""

    one: Running
    other: Running
    shared: SharedAnswers

    def model(self, generation: int = 1, *gateways: Running) -> None:
        raw = model_object(responseCache={"enabled": True, "ttl": "10m", "maxEntries": 50})
        raw["metadata"] |= {"uid": "uid-qwen", "generation": generation}
        for gateway in gateways or (self.one, self.other):
            gateway.store.put("modeldeployments", raw)
            gateway.store.refresh()

    def route(self, port: int) -> None:
        self.one.route(port)
        self.other.route(port)


@pytest.fixture
async def pair(redis: Redis, tmp_path: Path) -> AsyncIterator[Pair]:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    async with (
        answers(redis, "one") as mine,
        answers(redis, "other") as theirs,
        running_gateway(tmp_path / "one", answers=mine) as one,
        running_gateway(tmp_path / "other", answers=theirs) as other,
    ):
        pair = Pair(one, other, mine)
        pair.model()
        yield pair


async def hit(gateway: Running, **more: Any) -> bool:
    """Ask; whether it was known."""
    answered = await ask(gateway, **more)
    assert answered.status_code == 200, answered.text
    return answered.headers.get("x-pippin-cache") == "hit"


async def ask(gateway: Running, **more: Any) -> httpx.Response:
    asked = {"model": "qwen", "temperature": 0, "messages": [{"role": "user", "content": SAID}]}
    async with gateway.client() as http:
        return await http.post(CHAT, json=asked | more)


async def forget(gateway: Running) -> httpx.Response:
    async with gateway.client(ADMIN_TOKEN) as http:
        return await http.delete("/admin/cache/team-a/qwen")


def held(redis: Redis) -> list[str]:
    found: list[str] = redis.ask("KEYS", "pippin:answer:*")
    return found


async def test_what_one_gateway_was_told_the_other_knows(pair: Pair, redis: Redis) -> None:
    async def named(turn: Turn) -> None:
        if b'"stream"' in turn.request.body:
            return await good(turn)
        request_id = turn.request.headers["x-request-id"].encode()
        await turn.send(answer(b'{"choices":[],"request_id":"' + request_id + b'"}'))

    async with upstream(named) as replica:
        pair.route(replica.port)
        assert not await hit(pair.one)
        await eventually(lambda: len(held(redis)) == 1)
        known = await ask(pair.other)
        assert known.headers["x-pippin-cache"] == "hit"
        assert known.headers["x-pippin-served-by"] == "qwen-0"
        assert known.json() == {"choices": [], "request_id": known.headers["x-request-id"]}
        told = await ask(pair.one, stream=True)
        await eventually(lambda: len(held(redis)) == 2)
        again = await ask(pair.other, stream=True)
        assert again.headers["x-pippin-cache"] == "hit" and again.content == told.content
        assert again.headers["content-type"].startswith("text/event-stream")
        assert len(replica.requests) == 2
        assert 0 < redis.ask("PTTL", held(redis)[0]) <= 600_000
        redis.kill()
        assert await hit(pair.other), "what came from there is in memory too"


async def test_forgotten_at_one_gateway_is_forgotten_at_all(pair: Pair, redis: Redis) -> None:
    async with upstream() as replica:
        pair.route(replica.port)
        await ask(pair.one)
        await eventually(lambda: held(redis))
        assert await hit(pair.other)
        gone = await forget(pair.one)
        assert gone.json() == {"model": "team-a/qwen", "forgotten": 1}
        assert held(redis) == []
        began = time.monotonic()
        await eventually(lambda: pair.other.metric(HELD) == 0, within=5)
        assert time.monotonic() - began < 2
        assert [await hit(pair.other), await hit(pair.other)] == [False, True]
        await eventually(lambda: held(redis))
        assert await hit(pair.one)


async def test_an_answer_that_was_asked_for_before_is_not_kept_after_all_were_forgotten(
    pair: Pair, redis: Redis
) -> None:
    release = asyncio.Event()

    async def slow(turn: Turn) -> None:
        await release.wait()
        await good(turn)

    async with upstream(slow) as replica:
        pair.route(replica.port)
        asked = [asyncio.create_task(hit(one)) for one in (pair.one, pair.other)]
        await eventually(lambda: len(replica.requests) == 2)
        assert (await forget(pair.one)).status_code == 200
        release.set()
        assert await asyncio.gather(*asked) == [False, False]
        assert not await hit(pair.one)
        # By now Redis has heard of the other's as well: commands keep their order.
        await eventually(lambda: len(held(redis)) == 1)
        assert len(replica.requests) == 3


async def test_a_changed_model_has_other_answers(pair: Pair, redis: Redis) -> None:
    async with upstream() as replica:
        pair.route(replica.port)
        await ask(pair.one)
        await eventually(lambda: len(held(redis)) == 1)
        pair.model(2, pair.one)
        assert not await hit(pair.one)
        await eventually(lambda: len(held(redis)) == 2)
        assert await hit(pair.other), "which has not heard of the change yet"
        pair.model(2, pair.other)
        assert await hit(pair.other)
        assert len(replica.requests) == 2


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_without_redis_each_has_its_own_and_nobody_waits(
    pair: Pair, redis: Redis, how: signal.Signals
) -> None:
    async with upstream() as replica:
        pair.route(replica.port)
        assert redis.process
        redis.process.send_signal(how)
        began = time.monotonic()
        assert [await hit(pair.one, seed=seed) for seed in range(8)] == [False] * 8
        assert time.monotonic() - began < 2
        assert await hit(pair.one, seed=0) and not await hit(pair.other, seed=0)
        gone = await forget(pair.one)
        assert (gone.status_code, gone.json()["error"]["code"]) == (503, "cache_unavailable")
        assert not await hit(pair.one, seed=0), "its own it has forgotten"
        redis.process.send_signal(signal.SIGCONT)
        if how is signal.SIGKILL:
            redis.kill()
            await redis.start()
        seeds = itertools.count(100)
        await eventually(lambda: shares(pair, next(seeds)), within=5)
        assert (await forget(pair.one)).status_code == 200


async def shares(pair: Pair, seed: int) -> bool:
    """Whether the other gateway knows what the one was told."""
    await ask(pair.one, seed=seed)
    return await hit(pair.other, seed=seed)


async def test_trouble_with_answers_is_not_that_of_limits_nor_of_requests(
    pair: Pair, redis: Redis
) -> None:
    redis.ask("SET", "pippin:answers-forgotten", "in the way")
    async with upstream() as replica:
        pair.route(replica.port)
        assert not await hit(pair.one)
        await eventually(lambda: not pair.shared.redis.up, within=5)
        assert await hit(pair.one)


def stored(body: bytes = b"{}") -> Stored:
    return Stored([(b"content-type", b"text/plain")], body, "id", time.monotonic() + 60)


async def test_what_redis_keeps_nobody_else_can_read_make_up_or_move(redis: Redis) -> None:
    async with (
        answers(redis, "g") as mine,
        answers(redis, "h", b"x" * 32) as theirs,
    ):
        mine.keep(b"1", "n/one", POLICY, stored(SAID.encode()))
        assert await mine.recall(b"1", "n/one")
        (name,) = held(redis)
        written = b"".join(one.read_bytes() for one in redis.directory.glob("appendonlydir/*"))
        assert name.encode() in written and SAID.encode() not in written
        assert await theirs.recall(b"1", "n/one") is None
        mine.keep(b"2", "n/one", POLICY, stored(b"another"))
        assert await mine.recall(b"2", "n/one")
        (other,) = {*held(redis)} - {name}
        redis.ask("COPY", name, other, "REPLACE")
        assert await mine.recall(b"2", "n/one") is None
        redis.ask("SET", other, "short")
        assert await mine.recall(b"2", "n/one") is None


async def test_of_a_model_the_least_lately_used_goes_first(redis: Redis) -> None:
    async with answers(redis, "g") as one:
        one.keep(b"0", "n/other", POLICY, stored())
        for name in (b"1", b"2"):
            one.keep(name, "n/one", POLICY, stored())
        assert await one.recall(b"1", "n/one")
        one.keep(b"3", "n/one", POLICY, stored())
        kept = [name for name in (b"1", b"2", b"3") if await one.recall(name, "n/one")]
        assert kept == [b"1", b"3"]
        assert await one.recall(b"0", "n/other")
        assert redis.ask("ZCARD", "pippin:answers:n/one") == 2 and len(held(redis)) == 3
        assert 0 < redis.ask("PTTL", "pippin:answers:n/one") <= 60_000
        assert await one.forget("n/one") == 2
        assert len(held(redis)) == 1


async def test_a_redis_that_is_half_full_gets_no_more(redis: Redis) -> None:
    async with answers(redis, "g") as one:
        one.keep(b"1", "n/one", POLICY, stored())
        used = int(redis.ask("INFO", "memory").partition("used_memory:")[2].split()[0])
        redis.ask("CONFIG", "SET", "maxmemory", str(int(used * 1.7)))

        async def refuses() -> bool:
            one.keep(b"2", "n/one", POLICY, stored())
            if found := await one.recall(b"2", "n/one"):
                await one.forget("n/one")
            return found is None

        await eventually(refuses, within=5)
        assert one.redis.up, "limits have room"
