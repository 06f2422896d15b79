"""The official client talks to models through the gateway."""

from __future__ import annotations

import asyncio
import json
from hashlib import sha256
from pathlib import Path

import jwt
import openai
import pytest

from support.eventually import eventually
from support.gateway import Running, key_object, model_object, new_key, pod_object
from support.pictures import asked, png
from support.servers import echo_config, serving
from support.upstreams import Turn, answer, good, upstream

MESSAGES = [{"role": "user", "content": "hi"}]


def client(gateway: Running, **more: object) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=gateway.url + "/v1", api_key=gateway.key.key, max_retries=0, **more
    )


async def test_a_chat_answer_comes_back_whole(gateway: Running) -> None:
    async with upstream() as replica, client(gateway) as ai:
        gateway.route(replica.port)
        got = await ai.chat.completions.create(model="qwen", messages=MESSAGES)
    assert got.choices[0].message.content == "Hello there"
    assert got.usage is not None and got.usage.total_tokens == 9


async def test_a_stream_comes_back_event_by_event(gateway: Running) -> None:
    async with upstream() as replica, client(gateway) as ai:
        gateway.route(replica.port)
        stream = await ai.chat.completions.create(model="qwen", messages=MESSAGES, stream=True)
        words = [part.choices[0].delta.content async for part in stream]
    assert words == ["one ", "two ", "three", None]


async def test_an_alias_and_the_other_endpoints_reach_the_same_replica(gateway: Running) -> None:
    gateway.store.put("modeldeployments", model_object(model={"aliases": ["gpt-4o-mini"]}))
    async with upstream() as replica, gateway.client() as http:
        gateway.route(replica.port)
        for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings"):
            got = await http.post(path, json={"model": "gpt-4o-mini"})
            assert got.status_code == 200
            assert replica.requests[-1].line == f"POST {path} HTTP/1.1"
        assert replica.connections == 1, "kept connections are used again"


@pytest.mark.parametrize("size", [10, 400_000])
async def test_embeddings_come_back_and_are_counted_however_long_they_are(
    gateway: Running, size: int
) -> None:
    item = {"object": "embedding", "index": 0, "embedding": "A" * size}
    usage = {"prompt_tokens": 1234, "total_tokens": 1234}
    told = {"object": "list", "data": [item], "model": "qwen", "usage": usage}
    # As it comes when the network cuts where it hurts: in the middle of the number.
    whole = answer(json.dumps(told).encode())
    middle = whole.index(b"34", whole.index(b'"prompt_tokens"'))

    async def cut(turn: Turn) -> None:
        await turn.send(whole[:middle])
        await eventually(lambda: size < 400_000 or seen)
        await turn.send(whole[middle:])

    seen: list[bytes] = []
    async with upstream(cut) as replica, gateway.client() as http:
        gateway.route(replica.port)
        body = {"model": "qwen", "input": "hi"}
        async with http.stream("POST", "/v1/embeddings", json=body) as got:
            async for part in got.aiter_bytes():
                seen.append(part)
    assert json.loads(b"".join(seen)) == told
    assert json.loads(gateway.log[-1])["prompt_tokens"] == 1234
    labels = {"model": "team-a/qwen", "key": "team-a/app"}
    assert gateway.metric("pippin_gateway_tokens_total", kind="prompt", **labels) == 1234


async def test_models_lists_what_the_key_may_use(gateway: Running) -> None:
    narrow = new_key()
    gateway.store.put("modeldeployments", model_object("llama", model={"family": "llama"}))
    gateway.store.put("modeldeployments", model_object("secret", namespace="team-b"))
    gateway.store.put("apikeys", key_object(narrow, "narrow", models=["lla*"]))
    gateway.store.refresh()
    async with client(gateway) as ai:
        assert [model.id async for model in ai.models.list()] == ["llama", "qwen"]
        one = await ai.models.retrieve("llama")
        assert (one.id, one.owned_by) == ("llama", "team-a")
        ai.api_key = narrow.key
        assert [model.id async for model in ai.models.list()] == ["llama"]
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            await ai.models.retrieve("qwen")
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            await ai.models.retrieve("secret")


async def test_a_model_of_another_namespace_is_asked_for_by_both_names(gateway: Running) -> None:
    """Its replicas know it by its served name, and are shown a token for it."""
    opened = model_object("llm", namespace="team-b", auth={"namespaces": ["team-a"]})
    opened["spec"]["model"] = {"name": "big"}
    gateway.store.put("modeldeployments", opened)
    gateway.store.put("apikeys", key_object(gateway.key, models=["*", "team-b/big"]))
    async with upstream() as replica, client(gateway) as ai:
        pod = pod_object("llm-0", replica.port, "llm")
        pod["metadata"]["namespace"] = "team-b"
        gateway.store.put("pods", pod)
        gateway.store.refresh()
        await ai.chat.completions.create(model="team-b/big", messages=MESSAGES)
        assert [model.id async for model in ai.models.list()] == ["qwen", "team-b/big"]
        one = await ai.models.retrieve("team-b/big")
        assert (one.id, one.owned_by) == ("team-b/big", "team-b")
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            await ai.chat.completions.create(model="big", messages=MESSAGES)
    (request,) = replica.requests
    assert json.loads(request.body)["model"] == "big"
    token = request.headers["authorization"].removeprefix("Bearer ")
    assert jwt.decode(token, options={"verify_signature": False})["aud"] == "team-b/llm"


async def test_long_prompts_that_begin_alike_meet_at_one_replica(gateway: Running) -> None:
    """So that it has computed what they begin with; short ones go round."""
    system = {"role": "system", "content": "You are a helpful assistant. " * 50}
    async with upstream() as one, upstream() as two, client(gateway) as ai:
        gateway.route(one.port, two.port)
        for number in range(6):
            messages = [system, {"role": "user", "content": f"question {number}"}]
            await ai.chat.completions.create(model="qwen", messages=messages)
        assert sorted((len(one.requests), len(two.requests))) == [0, 6]
        for _ in range(4):
            await ai.chat.completions.create(model="qwen", messages=MESSAGES)
        assert min(len(one.requests), len(two.requests)) == 2


@pytest.mark.parametrize("priority", ["interactive", "batch"])
async def test_the_replica_hears_whether_others_go_first(gateway: Running, priority: str) -> None:
    gateway.store.put("apikeys", key_object(gateway.key, priority=priority))
    async with upstream() as replica, gateway.client() as http:
        gateway.route(replica.port)
        await http.post("/v1/chat/completions", json={"model": "qwen"})
    token = replica.requests[0].headers["authorization"].removeprefix("Bearer ")
    said = jwt.decode(token, options={"verify_signature": False})
    assert said["batch"] is (priority == "batch")


async def test_the_replica_gets_a_signed_token_and_nothing_else_of_the_client(
    gateway: Running,
) -> None:
    async with upstream() as replica, gateway.client() as http:
        gateway.route(replica.port)
        headers = {
            "x-request-id": "abc-1",
            "cookie": "a=b",
            "x-forwarded-for": "10.0.0.1",
            "traceparent": "00-1-2-03",
            "accept": "application/json",
            "te": "trailers",
            "proxy-authorization": "Basic eDp5",
        }
        got = await http.post(
            "/v1/chat/completions?api_key=x", json={"model": "qwen"}, headers=headers
        )
        seen = replica.requests[0]
    assert seen.line == "POST /v1/chat/completions HTTP/1.1"
    assert set(seen.headers) == {
        "host",
        "authorization",
        "content-type",
        "content-length",
        "x-request-id",
        "traceparent",
        "accept",
    }
    assert seen.headers["x-request-id"] == got.headers["x-request-id"] == "abc-1"
    assert gateway.key.key not in str(seen)
    token = seen.headers["authorization"].removeprefix("Bearer ")
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["aud"], claims["key"]) == ("team-a/qwen", "team-a/app")


async def test_only_known_headers_of_the_replica_come_back(gateway: Running) -> None:
    async def chatty(turn: Turn) -> None:
        whole = answer().replace(
            b"\r\nContent-Length",
            b"\r\nServer: x\r\nSet-Cookie: a=b\r\nX-Request-Id: other\r\nKeep-Alive: timeout=5"
            b"\r\nConnection: keep-alive\r\nContent-Length",
        )
        await turn.send(whole)

    async with upstream(chatty) as replica, gateway.client() as http:
        gateway.route(replica.port)
        got = await http.post("/v1/chat/completions", json={"model": "qwen"})
    assert got.headers["x-pippin-served-by"] == "qwen-0"
    assert got.headers.get_list("x-request-id") != ["other"]
    assert not {"server", "set-cookie", "keep-alive", "connection"} & set(got.headers)


async def test_the_access_line_and_metrics_tell_who_asked_what(gateway: Running) -> None:
    async with upstream() as replica, gateway.client() as http:
        gateway.route(replica.port)
        await http.post("/v1/chat/completions", json={"model": "qwen", "stream": True})
    line = json.loads(gateway.log[-1])
    assert line["key"] == "team-a/app" and line["model"] == "team-a/qwen"
    assert line["replica"] == "qwen-0" and line["status"] == 200
    assert (line["prompt_tokens"], line["completion_tokens"]) == (7, 3)
    assert line["ttft_ms"] > 0
    assert gateway.key.key not in str(gateway.log)
    labels = {"model": "team-a/qwen", "key": "team-a/app"}
    assert gateway.metric("pippin_gateway_requests_total", code="200", **labels) == 1
    assert gateway.metric("pippin_gateway_tokens_total", kind="completion", **labels) == 3
    first = "pippin_gateway_time_to_first_token_seconds_count"
    assert gateway.metric(first, model="team-a/qwen") == 1
    assert gateway.metric("pippin_gateway_requests_in_flight", model="team-a/qwen") == 0


async def test_requests_spread_over_the_ready_replicas(gateway: Running) -> None:
    async with upstream(good) as one, upstream(good) as two, gateway.client() as http:
        gateway.route(one.port, two.port)
        for _ in range(10):
            await http.post("/v1/chat/completions", json={"model": "qwen"})
        assert len(one.requests) == len(two.requests) == 5


async def test_a_request_for_many_tokens_counts_as_many_small_ones(gateway: Running) -> None:
    release = asyncio.Event()

    async def slow(turn: Turn) -> None:
        if b'"held"' in turn.request.body:
            await release.wait()
        await good(turn)

    async with upstream(slow) as one, upstream(slow) as other, gateway.client() as http:
        gateway.route(one.port, other.port)
        long = {"model": "qwen", "user": "held", "messages": [{"content": "word " * 4000}]}
        held = asyncio.create_task(http.post("/v1/chat/completions", json=long))
        await eventually(lambda: one.requests or other.requests)
        idle = other if one.requests else one
        short = {"model": "qwen", "user": "held", "max_tokens": 5}
        small = [
            asyncio.create_task(http.post("/v1/chat/completions", json=short)) for _ in range(6)
        ]
        await eventually(lambda: len(idle.requests) == 6)
        release.set()
        assert {(await one).status_code for one in (held, *small)} == {200}


async def test_calls_of_functions_and_their_answers_pass(gateway: Running, tmp_path: Path) -> None:
    look = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    config = echo_config(served_name="qwen")
    async with serving(tmp_path, config) as server, client(gateway) as ai:
        gateway.route(int(server.url.rpartition(":")[2]))
        asked = {"model": "qwen", "tools": [look]}
        first = await ai.chat.completions.create(**asked, messages=MESSAGES, tool_choice="required")
        said = first.choices[0].message.model_dump()
        (call,) = said["tool_calls"]
        result = {"role": "tool", "tool_call_id": call["id"], "content": "it is blue"}
        stream = await ai.chat.completions.create(
            **asked, messages=[*MESSAGES, said, result], stream=True
        )
        words = [part.choices[0].delta.content or "" async for part in stream]
    assert (said["content"], call["function"]) == (None, {"name": "look", "arguments": "{}"})
    assert "".join(words) == "it is blue"


async def test_a_picture_in_a_chat_reaches_the_replica_as_it_was_sent(
    gateway: Running, tmp_path: Path
) -> None:
    config = echo_config(served_name="qwen")
    shown = png(7, 400, 300)
    async with serving(tmp_path, config) as server, client(gateway) as ai:
        gateway.route(int(server.url.rpartition(":")[2]))
        made = await ai.chat.completions.create(model="qwen", messages=asked("look:", shown))
        with pytest.raises(openai.BadRequestError) as refused:
            await ai.chat.completions.create(model="qwen", messages=asked("look:", shown[:20]))
    digest = sha256(shown).hexdigest()[:8]
    assert made.choices[0].message.content == f"look:\n[png 400x300 {digest}]"
    assert refused.value.param == "messages.0.content.1.image_url.url"
