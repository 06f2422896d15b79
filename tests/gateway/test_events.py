"""Events of a stream reach the client one by one, as they come, through all that is between; and
nothing of a request stays behind."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from pippin_edge.asgi import Answer
from pippin_gateway.call import Call
from pippin_gateway.relay import Events
from pippin_gateway.upstream.client import Exchange
from pippin_gateway.upstream.http1 import Connection
from support.eventually import eventually
from support.gateway import Running, model_object
from support.upstreams import DONE, END, STREAM_HEAD, Turn, event, upstream

CHAT = "/v1/chat/completions"
WORDS = ["one ", "two ", "three ", "four"]
#: More than one read of a socket takes.
LONG = "x" * (1 << 20)

CASES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "behind a long prompt": {"messages": [{"role": "user", "content": LONG}]},
    "greedy, so that it could go on elsewhere": {"temperature": 0},
}


@pytest.mark.parametrize("asked", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("kept", [False, True], ids=["passed on", "kept in the cache too"])
async def test_each_event_comes_before_the_next_is_made(
    gateway: Running, asked: dict[str, Any], kept: bool
) -> None:
    arrived = asyncio.Event()

    async def one_by_one(turn: Turn) -> None:
        await turn.send(STREAM_HEAD)
        for word in WORDS:
            await turn.send(event(word))
            await arrived.wait()
            arrived.clear()
        await turn.send(DONE, END)

    if kept:
        gateway.store.put("modeldeployments", model_object(responseCache={"enabled": True}))
    body = {"model": "qwen", "stream": True, "messages": []} | asked
    got: list[bytes] = []
    async with upstream(one_by_one) as replica, gateway.client() as http:
        gateway.route(replica.port)
        async with asyncio.timeout(10), http.stream("POST", CHAT, json=body) as answer:
            async for part in answer.aiter_raw():
                got.append(part)
                arrived.set()
        assert got[-1] == b"data: [DONE]\n\n"
        assert [word.encode() in part for word, part in zip(WORDS, got, strict=False)] == [True] * 4
        assert b'"bytes":%d' % sum(map(len, got)) in gateway.log[-1]
        if kept and "temperature" in asked:
            again = await http.post(CHAT, json=body)
            assert again.headers["x-pippin-cache"] == "hit"
            assert again.content == b"".join(got)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_what_a_request_took_is_free_when_it_is_over(gateway: Running, stream: bool) -> None:
    """Without the garbage collector, and though both of its connections stay open."""
    async with upstream() as replica, gateway.client() as http:
        gateway.route(replica.port)
        body = {"model": "qwen", "stream": stream, "messages": []}
        await http.post(CHAT, json=body)
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                assert (await http.post(CHAT, json=body)).status_code == 200
            await eventually(left_of_requests, within=5, until=lambda left: not left)
        finally:
            gc.enable()
        assert replica.connections == replica.open == 1


async def test_what_a_client_left_is_free_as_well(gateway: Running) -> None:
    async def endless(turn: Turn) -> None:
        await turn.send(STREAM_HEAD, event("one "))
        await turn.hang()

    async with upstream(endless) as replica, gateway.client() as http:
        gateway.route(replica.port)
        gc.collect()
        gc.disable()
        try:
            body = {"model": "qwen", "stream": True, "messages": []}
            async with http.stream("POST", CHAT, json=body) as answer:
                await anext(answer.aiter_raw())
                assert left_of_requests() and alive(Connection)
            await eventually(left_of_requests, within=5, until=lambda left: not left)
            await eventually(lambda: alive(Connection), within=5, until=lambda left: not left)
        finally:
            gc.enable()


def left_of_requests() -> int:
    """A number: a list would keep them."""
    return alive(Answer, Call, Events, Exchange)


def alive(*kinds: type) -> int:
    return sum(type(one) in kinds for one in gc.get_objects())
