"""Streams of an engine's own application on their way through: a small one stands in for vLLM's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.metrics_core import Metric

from pippin_contract.serverconfig import ModelConfig, ServerConfig
from pippin_edge import serving
from pippin_edge.asgi import Receive, Scope, Send
from pippin_edge.clock import SYSTEM
from pippin_server import settings as told
from pippin_server.app import Surroundings, create_app
from pippin_server.engines.base import Activity, Host, Loaded, Progress

ROLE = b'data: {"id":"1","choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
WORD = b'data: {"id":"1","choices":[{"delta":{"content":" word"}}]}\n\n'
USAGE = b'data: {"id":"1","usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
ERROR = b'data: {"error": {"message": "no room", "code": 400}}\n\n'
DONE = b"data: [DONE]\n\n"


class Hosted(Host):
    """Answers every request with these events."""

    name = "vllm"

    def __init__(self, events: Iterable[bytes]) -> None:
        self.events = events

    async def load(self, path: Path | None, progress: Progress) -> Loaded:
        return Loaded(context_length=1, bytes=1, details={})

    async def warm_up(self) -> None: ...
    async def close(self) -> None: ...

    def activity(self) -> Activity:
        return Activity(active=0, batch=0, progressed_at=SYSTEM.monotonic(), alive=True)

    def fields(self, path: str) -> frozenset[str]:
        return frozenset({"model", "stream"})

    def metrics(self) -> Iterable[Metric]:
        return ()

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for event in self.events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


@asynccontextmanager
async def served(*events: bytes) -> AsyncIterator[tuple[httpx.AsyncClient, list[bytes]]]:
    """A client of the server, and the lines of its access log."""
    config = ServerConfig(
        engine="vllm", model=ModelConfig(path="/weights"), name="m", served_name="m"
    )
    lines: list[bytes] = []
    around = Surroundings(None, SYSTEM, lines.append)
    server = create_app(told.load({}), config, Hosted(events), around)
    await server.stand.load(None, warmup=False)
    listener, stop = serving.bind("127.0.0.1", 0), asyncio.Event()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    task = asyncio.create_task(serving.serve(server.app, listener, stop, serving.Drain(linger=0)))
    async with httpx.AsyncClient(base_url=url, verify=False) as client:
        yield client, lines
    stop.set()
    await task


async def asked(client: httpx.AsyncClient) -> str:
    """The whole stream."""
    body = {"model": "m", "stream": True}
    headers = {"x-request-id": "mine"}
    return (await client.post("/v1/chat/completions", json=body, headers=headers)).text


async def test_every_event_has_the_requests_id_and_is_else_as_it_came() -> None:
    async with served(ROLE, WORD, WORD, USAGE, DONE) as (client, lines):
        events = (await asked(client)).split("\n\n")
    assert events.pop() == ""
    assert events.pop() == "data: [DONE]"
    found = [json.loads(event.removeprefix("data: ")) for event in events]
    assert [one.pop("request_id") for one in found] == ["mine"] * 4
    sent = [json.loads(event.removeprefix(b"data: ")) for event in (ROLE, WORD, WORD, USAGE)]
    assert found == sent
    line = json.loads(lines[-1])
    assert (line["prompt_tokens"], line["completion_tokens"]) == (3, 2)
    assert line["ttft_ms"] >= 0


@pytest.mark.parametrize("begun", [(), (ROLE, WORD)])
async def test_after_an_error_nothing_is_said_any_more(begun: tuple[bytes, ...]) -> None:
    async with served(*begun, ERROR, WORD, DONE) as (client, _):
        *events, last = (await asked(client)).strip().split("\n\n")
    assert len(events) == len(begun)
    told = json.loads(last.removeprefix("data: "))
    assert told["error"]["message"] == "no room"
    assert told["request_id"] == "mine"


async def test_two_events_in_one_piece_have_the_id_each() -> None:
    async with served(ROLE, WORD + WORD, DONE) as (client, _):
        assert (await asked(client)).count('"request_id":"mine"') == 3
