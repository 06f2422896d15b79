"""The official client, sync and async, against the echo engine."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from support.servers import Running

KEY = "not-asked-for"


def a_client(server: Running, **options: object) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)


async def test_a_chat_is_answered(echo: Running) -> None:
    async with a_client(echo) as client:
        answer = await client.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": "hello big world"}]
        )
    assert answer.choices[0].message.content == "hello big world"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "echo"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 3)
    assert answer.usage.total_tokens == 6


async def test_a_chat_is_streamed_token_by_token(echo: Running) -> None:
    async with a_client(echo) as client:
        stream = await client.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": "one two three"}], stream=True
        )
        chunks = [chunk async for chunk in stream]
    assert [c.choices[0].delta.content for c in chunks] == ["", "one", " two", " three", None]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks] == [None] * 4 + ["stop"]
    assert len({c.id for c in chunks}) == 1
    assert all(c.usage is None for c in chunks)


async def test_usage_comes_last_when_it_is_asked_for(echo: Running) -> None:
    async with a_client(echo) as client:
        stream = await client.chat.completions.create(
            model="echo",
            messages=[{"role": "user", "content": "one two"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 2


def test_the_sync_client_is_served_as_well(echo: Running) -> None:
    with openai.OpenAI(base_url=f"{echo.url}/v1", api_key=KEY, max_retries=0) as client:
        answer = client.completions.create(model="echo", prompt="one two three", max_tokens=2)
        assert answer.choices[0].text == "one two"
        assert answer.choices[0].finish_reason == "length"
        stream = client.completions.create(model="echo", prompt="one two", stream=True)
        assert "".join(chunk.choices[0].text for chunk in stream) == "one two"


async def test_a_completion_takes_token_ids(echo: Running) -> None:
    async with a_client(echo) as client:
        answer = await client.completions.create(model="echo", prompt=[7, 8, 9])
        listed = await client.completions.create(model="echo", prompt=["only one"])
    assert answer.choices[0].text == "7 8 9"
    assert listed.choices[0].text == "only one"


async def test_an_alias_is_answered_with_the_served_name(echo: Running) -> None:
    async with a_client(echo) as client:
        answer = await client.chat.completions.create(
            model="parrot", messages=[{"role": "user", "content": "hi"}]
        )
    assert answer.model == "echo"


async def test_models_are_listed_with_what_is_known_of_them(echo: Running) -> None:
    async with a_client(echo) as client:
        models = [model async for model in client.models.list()]
        by_alias = await client.models.retrieve("parrot")
        with pytest.raises(openai.NotFoundError) as missing:
            await client.models.retrieve("nobody")
    model, adapter = models
    assert (adapter.id, adapter.model_dump()["parent"]) == ("echo:sql", "echo")
    assert by_alias.id == "echo"
    assert (model.id, model.object, model.owned_by) == ("echo", "model", "pippin")
    assert model.created > 1_700_000_000
    extra = model.model_dump()
    assert extra["context_length"] == 1000
    assert (extra["family"], extra["tags"], extra["tier"]) == ("bird", ["test"], "3A")
    assert missing.value.code == "model_not_found"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stop_sequence_never_shows(echo: Running, stream: bool) -> None:
    async with a_client(echo) as client:
        made = await client.chat.completions.create(
            model="echo",
            messages=[{"role": "user", "content": "one two three four"}],
            stop=["two th"],
            stream=stream,
        )
        if isinstance(made, openai.AsyncStream):
            chunks = [chunk async for chunk in made]
            text = "".join(c.choices[0].delta.content or "" for c in chunks)
            finish = chunks[-1].choices[0].finish_reason
        else:
            text, finish = made.choices[0].message.content or "", made.choices[0].finish_reason
    assert (text, finish) == ("one ", "stop")


async def test_an_answer_can_be_sent_back_as_it_came(echo: Running) -> None:
    async with a_client(echo) as client:
        first = await client.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": "one"}]
        )
        said: Any = first.choices[0].message.model_dump()
        again = await client.chat.completions.create(
            model="echo",
            messages=[{"role": "user", "content": "one"}, said, {"role": "user", "content": "two"}],
        )
    assert again.choices[0].message.content == "two"


async def test_many_at_once_get_their_own_answers(echo: Running) -> None:
    async with a_client(echo) as client:

        async def ask(number: int) -> str | None:
            answer = await client.chat.completions.create(
                model="echo", messages=[{"role": "user", "content": f"number {number}"}]
            )
            return answer.choices[0].message.content

        answers = await asyncio.gather(*(ask(number) for number in range(30)))
    assert answers == [f"number {number}" for number in range(30)]


async def test_a_prompt_beyond_the_context_is_refused_with_both_numbers(echo: Running) -> None:
    async with a_client(echo) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(
                model="echo", messages=[{"role": "user", "content": "word " * 1200}]
            )
        with pytest.raises(openai.BadRequestError) as too_much:
            await client.chat.completions.create(
                model="echo", messages=[{"role": "user", "content": "word " * 600}], max_tokens=500
            )
    assert refused.value.code == "context_length_exceeded"
    assert refused.value.param == "messages"
    assert "1000" in refused.value.message
    assert "1200" in refused.value.message
    assert "600" in too_much.value.message
    assert "500" in too_much.value.message
