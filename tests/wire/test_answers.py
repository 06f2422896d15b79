"""How answers leave: framing, the end of a process, and the public pages."""

from __future__ import annotations

import asyncio
import json
import time

from prometheus_client.parser import text_string_to_metric_families

from pippin_edge.asgi import Receive, Scope, Send
from pippin_edge.errors import ErrorEnvelope
from pippin_edge.request_id import RequestId
from pippin_edge.serving import Drain, bind, serve
from support.eventually import eventually
from support.gateway import Running
from support.upstreams import STREAM_HEAD, Turn, event, upstream

CHAT = "/v1/chat/completions"


async def raw(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    async with asyncio.timeout(5):
        got = await reader.read()
    writer.close()
    return got


async def test_a_head_has_the_headers_and_no_body(gateway: Running) -> None:
    async with gateway.client() as http:
        whole, head = await http.get("/v1/models"), await http.head("/v1/models")
        assert head.status_code == 200 and head.content == b""
        assert head.headers["content-length"] == whole.headers["content-length"]
        assert (await http.get("/v1/models")).content == whole.content


async def test_http_1_0_gets_an_answer_that_it_understands(gateway: Running) -> None:
    body = b'{"model":"qwen","stream":true}'
    request = (
        b"POST /v1/chat/completions HTTP/1.0\r\ncontent-type: application/json\r\n"
        b"authorization: Bearer %s\r\ncontent-length: %d\r\n\r\n%s"
        % (gateway.key.key.encode(), len(body), body)
    )
    async with upstream() as replica:
        gateway.route(replica.port)
        got = await raw(gateway.port, request)
    head, _, rest = got.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head and b"connection: close" in head
    assert rest.startswith(b"data: {") and rest.endswith(b"data: [DONE]\n\n")


async def test_the_public_pages_need_no_key_and_name_nobody(gateway: Running) -> None:
    async with gateway.client(key="") as http:
        for path in ("/health", "/ready", "/livez", "/status"):
            got = await http.get(path)
            assert got.status_code == 200 and "team-a" not in got.text
        status = (await http.get("/status")).json()
        assert status["synced"]["pods"] == {"synced": True, "ever": True, "false_since": None}
        assert (status["keys"], status["models"], status["replicas"]) == (1, 1, 0)
        gateway.store.disconnected("pods", "test")
        assert (await http.get("/ready")).status_code == 200
        pods = (await http.get("/status")).json()["synced"]["pods"]
        assert not pods["synced"] and pods["false_since"].startswith("20")


async def test_health_answers_within_five_milliseconds(gateway: Running) -> None:
    async with gateway.client(key="") as http:
        taken = []
        for _ in range(20):
            began = time.perf_counter()
            await http.get("/health")
            taken.append(time.perf_counter() - began)
    assert min(taken) < 0.005


async def test_metrics_are_prometheus_text_with_labels_from_the_catalog_only(
    gateway: Running,
) -> None:
    async with upstream() as replica, gateway.client() as http:
        gateway.route(replica.port)
        await http.post(CHAT, json={"model": "qwen", "stream": True})
        await http.post(CHAT, json={"model": "no-such-model"})
        await http.get("/v1/no-such-path")
        text = (await http.get("/metrics")).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert "no-such" not in text
    assert families["pippin_gateway_requests"].type == "counter"
    assert families["pippin_gateway_request_duration_seconds"].type == "histogram"
    labels = {"component": "gateway", "version": "0.1.0"}
    build = [s for f in families.values() for s in f.samples if s.name == "pippin_build_info"]
    assert build[0].labels == labels
    assert all(family.documentation for family in families.values())
    buckets = [
        sample.value
        for sample in families["pippin_gateway_request_duration_seconds"].samples
        if sample.name.endswith("_bucket") and sample.labels["model"] == "team-a/qwen"
    ]
    assert buckets == sorted(buckets) and buckets[-1] == 1


async def test_what_outlives_the_drain_is_told_so(gateway: Running) -> None:
    """Serving ends in time, and nobody is left with a cut that looks like an end."""
    waiting = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        waiting.set()
        await asyncio.Event().wait()

    stop, listener, told = asyncio.Event(), bind("127.0.0.1", 0), list[str]()
    drain = Drain(linger=0, timeout=1, on_draining=lambda: told.append("draining"))
    serving = asyncio.create_task(serve(RequestId(ErrorEnvelope(app)), listener, stop, drain))
    request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
    asking = asyncio.create_task(raw(listener.getsockname()[1], request))
    await waiting.wait()
    stop.set()
    async with asyncio.timeout(4):
        await serving
        got = await asking
    assert told == ["draining"]
    assert got.startswith(b"HTTP/1.1 503 ")
    assert json.loads(got.partition(b"\r\n\r\n")[2])["error"]["code"] == "not_ready"


async def test_a_stream_that_outlives_the_drain_ends_in_an_error_event(gateway: Running) -> None:
    async def endless(turn: Turn) -> None:
        await turn.send(STREAM_HEAD, event("one "))
        await turn.hang()

    gateway.store.put(
        "modeldeployments",
        {
            "metadata": {"name": "qwen", "namespace": "team-a"},
            "spec": {"timeouts": {"streamIdle": "1m", "total": "1m"}},
        },
    )
    async with upstream(endless) as replica, gateway.client() as http:
        gateway.route(replica.port)
        asking = asyncio.create_task(http.post(CHAT, json={"model": "qwen", "stream": True}))
        await eventually(lambda: len(replica.requests) == 1, within=2)
        gateway.stop.set()
        got = await asyncio.wait_for(asking, 8)
    last = json.loads(got.text.strip().split("\n\n")[-1].removeprefix("data: "))
    assert last["error"]["code"] == "not_ready" and "[DONE]" not in got.text
