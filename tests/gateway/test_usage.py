"""What keys have used, at /admin/usage: by one gateway's memory, and added up in a real Redis."""

from __future__ import annotations

import asyncio
import csv
import io
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from pippin_contract import usage
from pippin_edge.errors import NotReady
from pippin_gateway.catalog.model import ApiKey
from pippin_gateway.ledger.book import Took
from pippin_gateway.ledger.ledger import SharedLedger
from pippin_gateway.limiting.redis import Redis as Connection
from support.eventually import eventually
from support.gateway import ADMIN_TOKEN, Running, key_object, model_object, pod_object
from support.redis import Redis
from support.upstreams import DONE, END, STREAM_HEAD, Turn, answer, chunk, event, upstream

CHAT, USAGE = "/v1/chat/completions", "/admin/usage"
KEY = ApiKey("team-a", "app", ref="team-a/app", uid="uid-1", key_id="k1")
CACHED = b'"prompt_tokens_details":{"cached_tokens":4}'
USED = b'"usage":{"prompt_tokens":7,"completion_tokens":3,' + CACHED + b"}"


def uid(gateway: Running, value: str = "uid-app", **spec: Any) -> None:
    """The API server gives every object one."""
    raw = key_object(gateway.key, **spec)
    raw["metadata"]["uid"] = value
    gateway.store.put("apikeys", raw)
    gateway.store.refresh()


async def ask(gateway: Running, **more: Any) -> httpx.Response:
    async with gateway.client() as http:
        return await http.post(CHAT, json={"model": "qwen", **more})


async def report(gateway: Running) -> usage.UsageReport:
    async with gateway.client(ADMIN_TOKEN) as http:
        answered = await http.get(USAGE)
    assert answered.status_code == 200, answered.text
    return usage.load(answered.content)


async def test_answers_streams_and_failures_are_counted_by_key_and_model(gateway: Running) -> None:
    async def serve(turn: Turn) -> None:
        body = turn.request.body
        if b'"fail"' in body:
            await turn.send(answer(b"{}", status="500 Internal Server Error"))
        elif b'"stream"' in body:
            told = chunk(b'data: {"choices":[],' + USED + b"}\n\n")
            await turn.send(STREAM_HEAD, event("word"), told, DONE, END)
        else:
            await turn.send(answer(b"{" + USED + b"}"))

    uid(gateway)
    async with upstream(serve) as replica:
        gateway.route(replica.port)
        assert (await ask(gateway)).status_code == 200
        assert b"usage" not in (await ask(gateway, stream=True)).content
        assert (await ask(gateway, user="fail")).status_code == 500
        assert (await ask(gateway, model="no-such")).status_code == 404
        (key,) = (await report(gateway)).keys
        async with gateway.client(ADMIN_TOKEN) as http:
            table = await http.get(USAGE, params={"format": "csv"})
    assert (key.uid, key.key, list(key.ids)) == ("uid-app", "team-a/app", [gateway.key.key_id])
    (model,) = key.models
    assert model.model == "team-a/qwen"
    assert (model.requests, model.errors) == (3, 1)
    assert (model.prompt_tokens, model.completion_tokens, model.cached_tokens) == (14, 6, 8)
    (row,) = csv.DictReader(io.StringIO(table.text))
    assert (row["key"], row["model"], row["prompt_tokens"]) == ("team-a/app", "team-a/qwen", "14")


async def test_a_key_that_was_made_anew_begins_at_nothing(gateway: Running) -> None:
    async with upstream() as replica:
        gateway.route(replica.port)
        uid(gateway, "first")
        await ask(gateway)
        uid(gateway, "second")
        await ask(gateway)
        (key,) = (await report(gateway)).keys
    assert (key.uid, key.models[0].requests) == ("second", 1)


@pytest.mark.parametrize("path", [USAGE, "/admin/requests/x", "/admin/"])
async def test_only_the_administrators_token_opens_it(gateway: Running, path: str) -> None:
    for given in ("", gateway.key.key, "wrong", ADMIN_TOKEN + "x", "Ünicode"):
        async with gateway.client("") as http:
            headers = {b"x-api-key": given.encode("latin-1")}
            refused = await http.get(path, headers=headers)
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "invalid_api_key"
    async with gateway.client(ADMIN_TOKEN) as http:
        assert (await http.post(CHAT, json={"model": "qwen"})).status_code == 401
        assert (await http.post(path, json={})).status_code == 405
        assert (await http.get("/admin/cache/team-a/qwen")).status_code == 405
        assert (await http.get(USAGE, params={"format": "xml"})).status_code == 400


@asynccontextmanager
async def ledger(redis: Redis, gateway: str) -> AsyncIterator[SharedLedger]:
    """As one gateway has it; it only tells when the test says so."""

    async def nothing() -> None:
        pass

    connection = Connection(redis.address, nothing, gateway)
    running = asyncio.create_task(connection.run())
    try:
        await eventually(lambda: connection.up, within=10)
        yield SharedLedger(connection, gateway=gateway)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def requests(found: SharedLedger) -> int:
    try:
        report = usage.UsageReport.model_validate(await found.report())
    except NotReady:
        return -1
    return sum(model.requests for key in report.keys for model in key.models)


async def test_gateways_add_up_and_redis_remembers(redis: Redis) -> None:
    async with ledger(redis, "g1") as one, ledger(redis, "g2") as two:
        for each, tokens in ((one, 5), (two, 6)):
            each.note(KEY, "team-a/qwen", Took(prompt=tokens, completion=1, failed=tokens == 6))
            await each.close()
        source = (await one.report())["source"]
    redis.kill()
    await redis.start()
    async with ledger(redis, "g3") as three:
        three.note(KEY, "team-a/small", Took(cached=2))
        await three.close()
        told = usage.UsageReport.model_validate(await three.report())
    assert told.source == source
    (key,) = told.keys
    assert (key.uid, key.key, list(key.ids)) == ("uid-1", "team-a/app", ["k1"])
    by_model = {model.model: model for model in key.models}
    qwen = by_model["team-a/qwen"]
    assert (qwen.requests, qwen.errors, qwen.prompt_tokens, qwen.completion_tokens) == (2, 1, 11, 2)
    assert by_model["team-a/small"].cached_tokens == 2


async def test_what_was_told_and_not_confirmed_counts_once(redis: Redis) -> None:
    """Redis stands still with the telling in its socket, and does it later."""
    async with ledger(redis, "g1") as found:
        found.note(KEY, "team-a/qwen", Took(prompt=5))
        assert redis.process is not None
        redis.process.send_signal(signal.SIGSTOP)
        await found.close()  # not confirmed
        found.note(KEY, "team-a/qwen", Took(prompt=5))
        assert await requests(found) == -1
        redis.process.send_signal(signal.SIGCONT)

        async def all_told() -> bool:
            await found.close()
            return await requests(found) >= 2

        await eventually(all_told, within=10)
        await found.close()
        assert await requests(found) == 2


async def test_nothing_is_lost_while_redis_is_away(redis: Redis) -> None:
    async with ledger(redis, "g1") as found:
        redis.kill()
        for _ in range(3):
            found.note(KEY, "team-a/qwen", Took(prompt=1))
            await found.close()
        await redis.start()

        async def told() -> bool:
            await found.close()
            return await requests(found) == 3

        await eventually(told, within=10)


def by_hand(gateway: Running) -> None:
    """Two models of which one stands in for the other."""
    gateway.store.put("modeldeployments", model_object(fallbacks=["spare"]))
    gateway.store.put("modeldeployments", model_object("spare"))


async def test_a_fallback_is_counted_for_the_model_that_answered(gateway: Running) -> None:
    uid(gateway)
    by_hand(gateway)
    async with upstream() as replica:
        gateway.store.put("pods", pod_object("spare-0", replica.port, "spare"))
        gateway.store.refresh()
        assert (await ask(gateway)).status_code == 200
        (key,) = (await report(gateway)).keys
    assert [model.model for model in key.models] == ["team-a/spare"]
