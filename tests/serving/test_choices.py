"""Several answers to one request."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import openai
import pytest

from support.eventually import eventually
from support.servers import Running, echo_config, serving

ASK = [{"role": "user", "content": "hello big world"}]


def a_client(server: Running) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


async def test_each_choice_is_an_answer_and_the_prompt_counts_once(echo: Running) -> None:
    async with a_client(echo) as client:
        answer = await client.chat.completions.create(model="echo", messages=ASK, n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert {choice.message.content for choice in answer.choices} == {"hello big world"}
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 9)


async def test_a_stream_has_every_choice_to_its_end(tiny: Running) -> None:
    async with a_client(tiny) as client:
        stream = await client.chat.completions.create(
            model="tiny",
            messages=ASK,
            n=3,
            seed=5,
            max_tokens=12,
            stream=True,
            stream_options={"include_usage": True},
        )
        texts, ends, usage = {0: "", 1: "", 2: ""}, {}, None
        async for chunk in stream:
            usage = chunk.usage
            for choice in chunk.choices:
                assert choice.index not in ends
                texts[choice.index] += choice.delta.content or ""
                if choice.finish_reason:
                    ends[choice.index] = choice.finish_reason
        whole = await client.chat.completions.create(
            model="tiny", messages=ASK, n=3, seed=5, max_tokens=12
        )
    assert [choice.message.content for choice in whole.choices] == list(texts.values())
    assert len(set(texts.values())) == 3
    assert set(ends) == {0, 1, 2}
    assert usage == whole.usage


async def test_completions_have_choices_too(tiny: Running) -> None:
    async with a_client(tiny) as client:
        answer = await client.completions.create(
            model="tiny", prompt="hello", n=2, temperature=0, max_tokens=4
        )
    assert answer.choices[0].text == answer.choices[1].text


async def test_one_choice_that_fails_fails_the_answer_and_frees_the_others(
    tmp_path: Path,
) -> None:
    knobs = {"error_percent": 50, "tokens_per_second": 20, "seed": 1}
    async with serving(tmp_path, echo_config(echo=knobs)) as server:
        body = {"model": "echo", "messages": ASK, "n": 8}
        answer = await server.post("/v1/chat/completions", body)
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "engine_failed"

        async def idle() -> bool:
            return await server.metric("pippin_server_batch_size") == 0

        await eventually(idle, within=5)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_frees_all_of_them(tmp_path: Path, stream: bool) -> None:
    knobs = {"tokens_per_second": 1}
    async with serving(tmp_path, echo_config(echo=knobs)) as server:
        words = [{"role": "user", "content": "word " * 60}]
        body = {"model": "echo", "messages": words, "n": 4, "stream": stream}

        async def holds(count: int) -> bool:
            return await server.metric("pippin_server_batch_size") == count

        asking = asyncio.create_task(server.post("/v1/chat/completions", body))
        await eventually(lambda: holds(4), within=10)
        asking.cancel()
        with pytest.raises((asyncio.CancelledError, httpx.HTTPError)):
            await asking
        await eventually(lambda: holds(0), within=5)
        assert "exception" not in server.log
