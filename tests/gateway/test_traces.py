"""Requests as traces in a collector, and what becomes of them when it is away."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pippin_gateway.tracing import exporter
from pippin_gateway.tracing.exporter import Exporter
from support.eventually import eventually
from support.gateway import Running, free_port, running_gateway
from support.threaded import serving
from support.upstreams import Turn, upstream

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ASK = {"model": "qwen", "messages": [{"role": "user", "content": "a secret of mine"}]}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "EVERY", 0.05)


@contextlib.contextmanager
def collector(port: int = 0) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Its address, and the spans that it got."""
    spans: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told = json.loads(self.rfile.read(int(self.headers["content-length"])))
            for resource in told["resourceSpans"]:
                for scope in resource["scopeSpans"]:
                    spans.extend(scope["spans"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Not in the tests' output."""

    with serving(ThreadingHTTPServer(("127.0.0.1", port), Handler)) as url:
        yield f"{url}/v1/traces", spans


@contextlib.asynccontextmanager
async def traced(
    directory: Path, url: str, dropped: list[int], **config: Any
) -> AsyncIterator[Running]:
    telling = Exporter(url, dropped.append)
    task = asyncio.create_task(telling.run())
    try:
        async with running_gateway(directory, exporter=telling, **config) as gateway:
            yield gateway
    finally:
        task.cancel()


async def resets(turn: Turn) -> None:
    turn.reset()


async def ask(gateway: Running, **headers: str) -> None:
    async with gateway.client() as http:
        got = await http.post("/v1/chat/completions", json=ASK, headers=headers)
    assert got.status_code == 200


async def test_a_request_and_its_tries_are_in_the_callers_trace(tmp_path: Path) -> None:
    with collector() as (url, spans):
        async with traced(tmp_path, url, []) as gateway, upstream(resets) as bad:
            async with upstream() as good:
                gateway.route(bad.port, good.port)
                while not bad.requests:
                    await ask(gateway, traceparent=f"00-{TRACE}-{PARENT}-01", tracestate="a=b")
                await eventually(lambda: [s for s in spans if "status" in s], within=5)
                seen = good.requests[-1].headers
    (lost,) = [span for span in spans if "status" in span]
    (root,) = [span for span in spans if span["spanId"] == lost["parentSpanId"]]
    hops = [span for span in spans if span["name"] == "hop" and _is_part_of(root, span)]
    assert {span["traceId"] for span in spans} == {TRACE}
    assert root["parentSpanId"] == PARENT
    assert len(hops) == 2 and hops[0] is lost
    assert seen["traceparent"] == f"00-{TRACE}-{hops[1]['spanId']}-01", "the try is its caller"
    assert seen["tracestate"] == "a=b"
    told = json.dumps(spans)
    assert "a secret of mine" not in told and gateway.key.key not in told


def _is_part_of(root: dict[str, Any], span: dict[str, Any]) -> bool:
    return bool(span.get("parentSpanId") == root["spanId"])


async def test_only_a_share_of_the_traces_that_begin_here_is_told(tmp_path: Path) -> None:
    with collector() as (url, spans):
        async with traced(tmp_path, url, [], traces_share=0) as gateway, upstream() as replica:
            gateway.route(replica.port)
            await ask(gateway)
            await ask(gateway, traceparent=f"00-{TRACE}-{PARENT}-01")
            await eventually(lambda: spans, within=5)
            assert replica.requests[0].headers["traceparent"].endswith("-00")
    assert {span["traceId"] for span in spans} == {TRACE}


async def test_a_collector_that_is_away_costs_spans_and_nothing_else(tmp_path: Path) -> None:
    port, dropped = free_port(), list[int]()
    async with traced(tmp_path, f"http://127.0.0.1:{port}/v1/traces", dropped) as gateway:
        async with upstream() as replica:
            gateway.route(replica.port)
            await ask(gateway)
            await eventually(lambda: sum(dropped) == 1, within=5)
            with collector(port) as (_, spans):
                await ask(gateway)
                await eventually(lambda: spans, within=5)


async def test_what_waits_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "MOST", 2)
    monkeypatch.setattr(exporter, "EVERY", 60)
    dropped: list[int] = []
    async with traced(tmp_path, "http://127.0.0.1:1/", dropped) as gateway, upstream() as replica:
        gateway.route(replica.port)
        for _ in range(5):
            await ask(gateway)
    assert dropped == [1, 1, 1]


async def test_without_a_collector_a_callers_trace_is_passed_on(gateway: Running) -> None:
    told = f"00-{TRACE}-{PARENT}-01"
    async with upstream() as replica:
        gateway.route(replica.port)
        await ask(gateway, traceparent=told)
        await ask(gateway)
    first, second = replica.requests
    assert first.headers["traceparent"] == told and "traceparent" not in second.headers
