"""A server with vLLM and real weights: its answers, by the official client, whole and streamed,
with vLLM's own features and our envelope around them; and how it is watched while it works."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest

from support.eventually import eventually
from support.promlint import problems
from support.servers import Running
from support.vllm import LONG, named, open_stream

pytestmark = [pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="package")]

STORY = "As the sun dipped into the horizon, casting a warm glow over the bustling streets"
ASKED = [{"role": "user", "content": "Write a short story about a cat."}]
GREEDY: dict[str, Any] = {"model": "smol", "temperature": 0, "max_tokens": 16}


async def story(client: openai.AsyncOpenAI, **options: Any) -> str:
    answer = await client.chat.completions.create(messages=ASKED, **{**GREEDY, **options})
    text: str = answer.choices[0].message.content
    return text


async def test_a_stream_says_what_the_whole_answer_says(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        messages=ASKED, stream=True, stream_options={"include_usage": True}, **GREEDY
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == await story(client)
    assert STORY.startswith(text)
    assert chunks[-1].choices == [] and chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 16
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_sixteen_at_once_say_what_each_says_alone(client: openai.AsyncOpenAI) -> None:
    prompts = [f"{number} cats" for number in range(16)]

    async def continued(prompt: str) -> str:
        answer = await client.completions.create(prompt=prompt, **{**GREEDY, "max_tokens": 6})
        return answer.choices[0].text

    alone = [await continued(prompt) for prompt in prompts]
    assert await asyncio.gather(*map(continued, prompts)) == alone
    assert len(set(alone)) > 4


async def test_a_seed_repeats(client: openai.AsyncOpenAI) -> None:
    hot = {"temperature": 1.2, "max_tokens": 12}
    first = await story(client, seed=7, **hot)
    assert await story(client, seed=7, **hot) == first
    assert await story(client, seed=8, **hot) != first


async def test_a_stop_never_leaks(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        messages=ASKED, stream=True, stop=["horizon, cast"], **GREEDY
    )
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(pieces) == STORY[: STORY.index("horizon")]


async def test_several_choices_and_their_logprobs(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="smol", messages=ASKED, n=2, max_tokens=3, logprobs=True, top_logprobs=2, seed=1
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    found = answer.choices[0].logprobs
    assert found is not None and found.content is not None
    assert len(found.content) == 3
    assert all(len(token.top_logprobs) == 2 for token in found.content)


async def test_a_schema_is_enforced(client: openai.AsyncOpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"enum": ["Tom", "Felix"]}, "age": {"enum": [1, 2, 3]}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    kind = {"type": "json_schema", "json_schema": {"name": "cat", "schema": schema, "strict": True}}
    said = await story(client, response_format=kind, max_tokens=40)
    cat = json.loads(said)
    assert cat["name"] in ("Tom", "Felix") and cat["age"] in (1, 2, 3)


async def test_a_tool_is_called_when_it_must_be(client: openai.AsyncOpenAI) -> None:
    parameters = {
        "type": "object",
        "properties": {"city": {"enum": ["Oslo", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    weather = {"name": "weather", "strict": True, "parameters": parameters}
    answer = await client.chat.completions.create(
        messages=[{"role": "user", "content": "How is the weather in Oslo?"}],
        tools=[{"type": "function", "function": weather}],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        **{**GREEDY, "max_tokens": 80},
    )
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments)["city"] in ("Oslo", "Rome")


async def test_an_alias_and_token_ids_are_taken(client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(
        model="tiny", prompt=[28, 29, 30], max_tokens=2, temperature=0
    )
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 3


async def test_every_piece_carries_the_requests_id(smol: Running) -> None:
    body = {"messages": ASKED, **GREEDY, "max_tokens": 3}
    headers = {"X-Request-ID": "mine-1"}
    whole = await smol.post("/v1/chat/completions", body, headers=headers)
    assert whole.headers["x-request-id"] == whole.json()["request_id"] == "mine-1"
    streamed = await smol.post("/v1/chat/completions", {**body, "stream": True}, headers=headers)
    events = [line[6:] for line in streamed.text.splitlines() if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    assert {json.loads(event)["request_id"] for event in events} == {"mine-1"}


async def test_two_requests_with_one_id_are_two(smol: Running) -> None:
    body = {"messages": ASKED, **GREEDY}
    headers = {"X-Request-ID": "twice"}
    both = await asyncio.gather(
        *(smol.post("/v1/chat/completions", body, headers=headers) for _ in range(2))
    )
    assert [answer.status_code for answer in both] == [200, 200]


@pytest.mark.parametrize(
    ("path", "change", "told"),
    [
        ("chat/completions", {"wibble": 1}, (400, "wibble", "unknown_parameter")),
        ("chat/completions", {"max_tokens": "many"}, (400, "max_tokens", "invalid_value")),
        ("chat/completions", {"temperature": 9}, (400, "temperature", "invalid_value")),
        ("chat/completions", {"max_tokens": 600}, (400, "max_tokens", "context_length_exceeded")),
        ("chat/completions", {"model": "other"}, (404, "model", "model_not_found")),
        ("embeddings", {}, (400, "model", "invalid_request")),
    ],
)
async def test_what_cannot_be_done_is_refused_by_its_name(
    smol: Running, path: str, change: dict[str, Any], told: tuple[int, str, str]
) -> None:
    answer = await smol.post(f"/v1/{path}", {"messages": ASKED, **GREEDY, **change})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == told
    assert error["type"] == "invalid_request_error"
    assert answer.json()["request_id"]


async def test_a_prompt_beyond_the_context_is_refused_with_both_numbers(smol: Running) -> None:
    long = [{"role": "user", "content": "cat " * 700}]
    for stream in (False, True):
        answer = await smol.post(
            "/v1/chat/completions", {**GREEDY, "messages": long, "stream": stream}
        )
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["code"] == "context_length_exceeded"
        assert "512" in error["message"]


async def test_nothing_of_vllms_own_paths_is_open(smol: Running) -> None:
    for path in ("/tokenize", "/v1/load_lora_adapter", "/pause", "/inference/v1/generate"):
        assert (await smol.post(path, {})).status_code == 404
    assert (await smol.get("/version")).status_code == 404


async def is_idle(server: Running) -> bool:
    return (
        await server.metric("pippin_server_requests_in_flight") == 0
        and await server.metric("vllm_num_requests_running") == 0
    )


async def test_the_metrics_count_and_have_names_that_prometheus_wants(smol: Running) -> None:
    before = await smol.metric("pippin_server_completion_tokens_total")
    answer = await smol.post("/v1/completions", {"model": "smol", "prompt": "a", "max_tokens": 5})
    assert answer.status_code == 200
    assert await smol.metric("pippin_server_completion_tokens_total") == before + 5
    assert await smol.metric("vllm_generation_tokens_total") == before + 5
    assert await smol.metric("pippin_server_time_to_first_token_seconds_count") > 0
    assert await smol.metric("pippin_server_models_loaded", engine="vllm") == 1
    assert problems((await smol.get("/metrics")).text) == []


async def test_a_prompt_that_was_read_before_is_found_in_the_cache(smol: Running) -> None:
    body = {"model": "smol", "prompt": "One, two, three, four. " * 40, "max_tokens": 1}
    assert (await smol.post("/v1/completions", body)).status_code == 200
    before = (await smol.get("/v1/metrics")).json()["cache"]
    assert before["misses"] > 128
    again = await smol.post("/v1/completions", body)
    assert again.json()["usage"]["prompt_tokens_details"]["cached_tokens"] >= 128
    after = (await smol.get("/v1/metrics")).json()["cache"]
    assert after["hits"] >= before["hits"] + 128 and 0 < after["hit_rate"] < 1
    assert await smol.metric("pippin_server_prompt_cache_hits_total") == after["hits"]


async def test_its_lines_in_the_log_are_ours(smol: Running) -> None:
    """vLLM's, of all its processes, as JSON; and ours are not lost behind them."""
    assert '"event": "model.ready"' in smol.log
    lines = [json.loads(line) for line in smol.log.splitlines() if line.startswith("{")]
    assert {"vllm.config.model", "vllm.v1.engine.core"} <= {line["logger"] for line in lines}


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_frees_its_place_and_the_engine(
    smol: Running, stream: bool
) -> None:
    async def at_work() -> bool:
        return await smol.metric("vllm_num_requests_running") == 1

    asking = asyncio.create_task(
        smol.post("/v1/chat/completions", {**LONG, "max_tokens": 400, "stream": stream})
    )
    assert await eventually(at_work, within=10)
    asking.cancel()
    with pytest.raises((asyncio.CancelledError, httpx.HTTPError)):
        await asking
    # All of it would take the engine four times as long.
    assert await eventually(lambda: is_idle(smol), within=5)


async def test_an_engine_that_stands_still_is_told_and_goes_on(smol: Running) -> None:
    (engine,) = named(smol, "EngineCore")
    async with smol.client() as client:
        stream = await open_stream(client)
        engine.suspend()
        try:
            await eventually(lambda: stalled(smol), within=15)
        finally:
            engine.resume()
        text = (await stream.aread()).decode()
    assert text.endswith("data: [DONE]\n\n")
    assert (await smol.get("/livez")).status_code == 200


async def stalled(server: Running) -> bool:
    answer = await server.get("/livez")
    return answer.status_code == 503 and "EngineStalled" in answer.json()["reason"]
