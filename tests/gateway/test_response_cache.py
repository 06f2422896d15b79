"""Equal requests of a model with `responseCache` are answered from memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pippin_edge.asgi import Message
from pippin_edge.clock import Clock
from pippin_gateway.cache import ENTRY_BYTES, ResponseCache, digest
from pippin_gateway.catalog.model import ApiKey, CachePolicy, Model, ModelSpec
from support.eventually import eventually
from support.gateway import (
    ADMIN_TOKEN,
    Running,
    key_object,
    model_object,
    new_key,
    running_gateway,
)
from support.upstreams import Turn, Upstream, answer, good, upstream

CHAT = "/v1/chat/completions"
GREEDY = {"temperature": 0, "messages": [{"role": "user", "content": "hi"}]}
IN_FLIGHT = "pippin_gateway_requests_in_flight"


class Moment:
    """Monotonic time that a test moves on."""

    def __init__(self) -> None:
        self.moved = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.moved


@pytest.fixture
def moment() -> Moment:
    return Moment()


@pytest.fixture
async def caching(tmp_path: Path, moment: Moment) -> AsyncIterator[Running]:
    async with running_gateway(tmp_path, clock=Clock(monotonic=moment)) as running:
        cached(running)
        yield running


def cached(gateway: Running, generation: int = 1) -> None:
    raw = model_object(responseCache={"enabled": True, "ttl": "10m"})
    raw["metadata"] |= {"uid": "uid-qwen", "generation": generation}
    gateway.store.put("modeldeployments", raw)
    gateway.store.refresh()


async def ask(gateway: Running, key: str | None = None, **more: Any) -> httpx.Response:
    async with gateway.client(key) as http:
        return await http.post(CHAT, json={"model": "qwen", **GREEDY, **more})


def hit(answered: httpx.Response) -> bool:
    assert answered.status_code == 200, answered.text
    return answered.headers.get("x-pippin-cache") == "hit"


async def test_the_second_of_two_equal_requests_asks_nobody(caching: Running) -> None:
    async def named(turn: Turn) -> None:
        request_id = turn.request.headers["x-request-id"].encode()
        await turn.send(answer(b'{"choices":[],"request_id":"' + request_id + b'"}'))

    async with upstream(named) as replica:
        caching.route(replica.port)
        first, second = await ask(caching), await ask(caching, user="another")
    assert [hit(first), hit(second)] == [False, True]
    assert len(replica.requests) == 1
    for one in (first, second):
        assert one.json() == {"choices": [], "request_id": one.headers["x-request-id"]}
        assert one.headers["x-pippin-served-by"] == "qwen-0"
    labels = {"model": "team-a/qwen", "result": "hit"}
    assert caching.metric("pippin_gateway_response_cache_total", **labels) == 1
    assert b'"cache":"hit"' in caching.log[-1]


async def test_a_stream_comes_back_as_a_stream_and_is_not_the_whole_answer(
    caching: Running,
) -> None:
    async with upstream() as replica:
        caching.route(replica.port)
        whole = await ask(caching)
        streams = [await ask(caching, stream=True) for _ in range(2)]
    assert [hit(one) for one in (whole, *streams)] == [False, False, True]
    assert streams[0].content == streams[1].content
    assert streams[1].content.endswith(b"data: [DONE]\n\n")
    assert streams[1].headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize(
    "different",
    [{"temperature": 0.5}, {"temperature": None}, {"messages": []}, {"max_tokens": 3}, {"seed": 1}],
)
async def test_a_request_that_differs_or_may_have_two_answers_is_asked(
    caching: Running, different: dict[str, Any]
) -> None:
    async with upstream() as replica:
        caching.route(replica.port)
        assert not hit(await ask(caching))
        assert not hit(await ask(caching, **different))


async def test_an_answer_grows_old_and_goes_when_the_model_changes(
    caching: Running, moment: Moment
) -> None:
    async with upstream() as replica:
        caching.route(replica.port)
        seen = [hit(await ask(caching))]
        moment.moved += 540
        seen.append(hit(await ask(caching)))
        moment.moved += 61
        seen.append(hit(await ask(caching)))
        cached(caching, generation=2)
        seen.append(hit(await ask(caching)))
        async with caching.client(ADMIN_TOKEN) as http:
            gone = await http.delete("/admin/cache/team-a/qwen")
        assert gone.json() == {"model": "team-a/qwen", "forgotten": 1}
        seen.append(hit(await ask(caching)))
    assert seen == [False, True, False, False, False]


async def test_keys_of_other_namespaces_do_not_see_each_others_answers(caching: Running) -> None:
    neighbour = new_key()
    raw = model_object(responseCache={"enabled": True}, auth={"namespaces": ["team-b"]})
    caching.store.put("modeldeployments", raw)
    theirs = key_object(neighbour, "theirs", namespace="team-b", models=["team-a/qwen"])
    caching.store.put("apikeys", theirs)
    async with upstream() as replica:
        caching.route(replica.port)
        assert not hit(await ask(caching))
        assert not hit(await ask(caching, neighbour.key, model="team-a/qwen"))
        assert hit(await ask(caching))


async def test_requests_that_come_together_are_one(caching: Running) -> None:
    release = asyncio.Event()

    async def slow(turn: Turn) -> None:
        await release.wait()
        await good(turn)

    async with upstream(slow) as replica:
        caching.route(replica.port)
        asked = [asyncio.create_task(ask(caching)) for _ in range(5)]
        await eventually(lambda: caching.metric(IN_FLIGHT, model="team-a/qwen") == 5)
        await eventually(lambda: len(replica.requests) == 1)
        asked.pop().cancel()
        await eventually(lambda: caching.metric(IN_FLIGHT, model="team-a/qwen") == 4)
        release.set()
        assert sorted(map(hit, await asyncio.gather(*asked))) == [False, True, True, True]
        assert len(replica.requests) == 1


async def test_failures_are_not_kept(caching: Running) -> None:
    async def failing(turn: Turn) -> None:
        failed = len(replica.requests) < 3
        await turn.send(answer(b"{}", "500 Oops") if failed else answer())

    replica: Upstream
    async with upstream(failing) as replica:
        caching.route(replica.port)
        statuses = [one.status_code for one in [await ask(caching) for _ in range(4)]]
        assert statuses == [500, 500, 200, 200]
        assert len(replica.requests) == 3


async def test_the_answer_of_a_fallback_is_not_kept_as_the_models(caching: Running) -> None:
    raw = model_object(responseCache={"enabled": True}, fallbacks=["spare"])
    caching.store.put("modeldeployments", raw)
    caching.store.put("modeldeployments", model_object("spare"))
    async with upstream() as replica:
        caching.route(replica.port, model="spare")
        assert [hit(await ask(caching)) for _ in range(2)] == [False, False]


KEY, POLICY = ApiKey("team-a", "app"), CachePolicy(ttl=60, entries=3)


def a_model(name: str) -> Model:
    return Model(ModelSpec("team-a", name, name), (), f"team-a/{name}")


async def keep(cache: ResponseCache, name: bytes, model: Model, body: bytes, **over: Any) -> None:
    async def nowhere(message: Message) -> None:
        pass

    recorder = cache.recorder(nowhere, "id", model)
    head, last = {"status": 200, "headers": []}, {"body": body, "more_body": False}
    for kind, message in (("start", head), ("body", last)):
        told = {name: over.get(name, value) for name, value in message.items()}
        await recorder({"type": f"http.response.{kind}", **told})
    cache.put(name, model, POLICY, recorder)


async def test_what_is_kept_is_bounded_by_entries_and_by_bytes() -> None:
    cache = ResponseCache(lambda: 0, most_bytes=100)
    one, two = a_model("one"), a_model("two")
    for number in range(5):
        await keep(cache, b"%d" % number, one, b"x" * 10)
    assert [bool(cache.get(b"%d" % number, one)) for number in range(5)] == [False] * 2 + [True] * 3
    await keep(cache, b"big", two, b"x" * 70)
    assert cache.held == 100
    await keep(cache, b"more", one, b"x" * 10)
    assert cache.held <= 100 and cache.get(b"more", one)
    await keep(cache, b"too big", two, b"x" * 101)
    assert cache.get(b"too big", two) is None and cache.held <= 100
    cache.retain(frozenset({"team-a/two"}))
    assert cache.get(b"more", one) is None


@pytest.mark.parametrize(
    ("body", "more"),
    [(b"x", {"status": 400}), (b"x", {"more_body": True}), (b"x" * (ENTRY_BYTES + 1), {})],
)
async def test_only_whole_good_answers_of_a_sane_size_are_kept(
    body: bytes, more: dict[str, Any]
) -> None:
    cache, model = ResponseCache(lambda: 0), a_model("one")
    await keep(cache, b"name", model, body, **more)
    assert cache.held == 0


def test_embeddings_have_one_answer_and_idle_fields_do_not_count() -> None:
    model, path = a_model("one"), "/v1/embeddings"
    mine, theirs = {"input": "text", "user": "a"}, {"user": "b", "input": "text"}
    assert digest(path, mine, KEY, model) == digest(path, theirs, KEY, model) is not None
    for asked in ({"temperature": False}, {"temperature": None}, {"seed": "1"}, {}):
        assert digest(CHAT, asked, KEY, model) is None
