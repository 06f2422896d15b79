"""A replica dies in the middle of a stream: another tells the rest, where there is one answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import weights
from openai.types import CompletionUsage

from support.eventually import eventually
from support.gateway import ADMIN_TOKEN, Running, model_object, running_gateway
from support.servers import Running as Server
from support.servers import echo_config, mlx_config, serving
from support.upstreams import DONE, END, STREAM_HEAD, Script, Turn, answer, event, upstream

PATH = "/v1/chat/completions"
ASK = {"model": "qwen", "messages": [], "stream": True, "temperature": 0}
USED = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


async def dies(turn: Turn) -> None:
    await turn.send(STREAM_HEAD, event("one "), event("two "))
    turn.reset()


async def stalls(turn: Turn) -> None:
    await turn.send(STREAM_HEAD, event("one "))
    await turn.hang()


async def goes_on(turn: Turn) -> None:
    await turn.send(STREAM_HEAD, event("one two"), event(" three"))
    await turn.send(event(None, usage=USED), DONE, END)


async def answers_otherwise(turn: Turn) -> None:
    await turn.send(STREAM_HEAD, event("one more "), event(None), DONE, END)


async def refuses(turn: Turn) -> None:
    await turn.send(answer(b'{"error":{"code":"invalid_value"}}', "400 Bad Request"))


def said(text: str) -> str:
    found = ""
    for line in text.splitlines():
        if line.startswith("data: {") and "choices" in line:
            found += json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
    return found


async def streamed(gateway: Running, first: Script, then: Script, **more: object) -> str:
    """What a client gets of a stream that begins at the first replica."""
    async with upstream(first) as one, upstream(then) as two, gateway.client() as http:
        for _ in range(4):  # until the first is asked first
            gateway.route(one.port, two.port)
            got = await http.post(PATH, json={**ASK, **more}, headers={"x-request-id": "r"})
            if one.requests:
                assert got.status_code == 200
                return got.text
    raise AssertionError("the first was never asked")


@pytest.mark.parametrize("first", [dies, stalls])
@pytest.mark.parametrize("only_one_answer", [{"temperature": 0}, {"temperature": 1, "seed": 7}])
async def test_the_client_gets_the_whole_answer_once(
    gateway: Running, first: Script, only_one_answer: dict[str, object]
) -> None:
    text = await streamed(gateway, first, goes_on, **only_one_answer)
    assert said(text) == "one two three"
    assert text.count("[DONE]") == 1 and '"error"' not in text
    async with gateway.client(ADMIN_TOKEN) as http:
        told = (await http.get("/admin/requests/r")).json()
    assert [hop["replica"] for hop in told["hops"]] == ["qwen-0", "qwen-1"]
    assert told["hops"][1]["outcome"] == "200"
    assert told["tokens"]["completion"] == 3


@pytest.mark.parametrize(
    ("then", "more"),
    [
        (goes_on, {"temperature": 1}),
        (answers_otherwise, {}),
        (dies, {}),
        (refuses, {}),
    ],
    ids=["many answers", "another answer", "dies too", "refuses"],
)
async def test_what_cannot_go_on_ends_in_an_error_event(
    gateway: Running, then: Script, more: dict[str, object]
) -> None:
    text = await streamed(gateway, dies, then, **more)
    assert said(text) == "one two "
    last = text.rstrip().splitlines()[-1].removeprefix("data: ")
    assert json.loads(last)["error"]["code"]
    assert "[DONE]" not in text


async def test_another_model_never_tells_the_rest(gateway: Running) -> None:
    models = [model_object(fallbacks=["llama"]), model_object("llama")]
    gateway.store.replace("modeldeployments", models)
    text = await streamed(gateway, dies, dies)
    assert said(text) == "one two "
    assert '"error"' in text


async def test_a_model_with_one_try_has_one(gateway: Running) -> None:
    once = model_object(retries={"attempts": 1, "backoff": "0s"})
    gateway.store.put("modeldeployments", once)
    assert '"error"' in await streamed(gateway, dies, goes_on)


@pytest.fixture(params=["echo", "real weights"])
async def servers(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[list[Server]]:
    """Two of one model, slow enough to be killed in the middle."""
    if request.param == "echo":
        config = echo_config(served_name="qwen", echo={"tokens_per_second": 50})
    else:
        model = await asyncio.to_thread(weights.prepare)
        config = mlx_config(model, served_name="qwen", max_concurrency=2)
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for number in range(2):
            directory = tmp_path / f"server-{number}"
            directory.mkdir()
            starting = serving(directory, config, wait="up")
            made.append(await stack.enter_async_context(starting))
        for server in made:
            await eventually(server.is_ready, within=60)
        yield made


async def test_the_official_client_notices_nothing_when_a_real_server_is_killed(
    servers: list[Server], tmp_path: Path
) -> None:
    numbers = " ".join(map(str, range(60)))
    asked: dict[str, Any] = {
        "model": "qwen",
        "messages": [{"role": "user", "content": f"Go on: {numbers}"}],
        "temperature": 0,
        "max_tokens": 60,
    }
    whole = (await servers[0].post(PATH, asked, timeout=100)).json()
    async with running_gateway(tmp_path) as gateway:
        gateway.route(*(int(server.url.rpartition(":")[2]) for server in servers))
        text, ids, used = await _through_a_death(gateway, servers, asked)
        assert text == whole["choices"][0]["message"]["content"]
        assert len(ids) == 1
        assert used is not None and used.completion_tokens == whole["usage"]["completion_tokens"]
        kinds = ("reset", "cut")
        labels = [{"model": "team-a/qwen", "kind": kind} for kind in kinds]
        assert sum(gateway.metric("pippin_gateway_retries_total", **one) for one in labels) == 1


async def _through_a_death(
    gateway: Running, servers: list[Server], asked: dict[str, Any]
) -> tuple[str, set[str], CompletionUsage | None]:
    """What the official client reads: the text, the ids of its events, the usage."""
    text, ids, used, events = "", set(), None, 0
    url = f"{gateway.url}/v1"
    async with openai.AsyncOpenAI(api_key=gateway.key.key, base_url=url) as client:
        more: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
        async for chunk in await client.chat.completions.create(**asked, **more):
            ids.add(chunk.id)
            used = chunk.usage or used
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
            events += 1
            if events == 8:
                await _kill_the_busy_one(servers)
    return text, ids, used


async def _kill_the_busy_one(servers: list[Server]) -> None:
    for server in servers:
        if (await server.get("/v1/queue/stats")).json()["active"]:
            server.process.kill()
            await asyncio.to_thread(server.process.wait)
            return
    raise AssertionError("it was over too soon")
