"""The MLX engine's mechanics, on a tiny random model: batching, streams, stops, seeds, ends."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import openai
import pytest

from support import tinymodel
from support.eventually import eventually
from support.servers import Running, mlx_config, serving

GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 24}


def a_client(server: Running) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


async def chat(client: openai.AsyncOpenAI, content: str, **options: Any) -> str:
    answer = await client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": content}], **options
    )
    text: str = answer.choices[0].message.content
    return text


async def streamed(client: openai.AsyncOpenAI, content: str, **options: Any) -> list[str]:
    stream = await client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": content}], stream=True, **options
    )
    return [chunk.choices[0].delta.content or "" async for chunk in stream]


def prompts(count: int) -> list[str]:
    words = ["hello", "big", "green", "world", "the server", "batch of tokens"]
    return [" ".join(words[: 1 + i % 6]) + f" {i}" for i in range(count)]


async def test_sixteen_at_once_say_what_each_says_alone(tiny: Running) -> None:
    async with a_client(tiny) as client:
        alone = [await chat(client, prompt, **GREEDY) for prompt in prompts(16)]
        together = await asyncio.gather(*(chat(client, p, **GREEDY) for p in prompts(16)))
    assert together == alone
    assert len(set(alone)) > 8


async def test_a_stream_says_what_the_whole_answer_says(tiny: Running) -> None:
    async with a_client(tiny) as client:
        whole = await chat(client, "hello world", **GREEDY)
        pieces = await streamed(client, "hello world", **GREEDY)
    assert "".join(pieces) == whole
    assert len([piece for piece in pieces if piece]) > 12


async def test_usage_counts_the_templates_tokens_and_the_answers(tiny: Running) -> None:
    async with a_client(tiny) as client:
        answer = await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hello world"}], **GREEDY
        )
        bare = await client.completions.create(model="tiny", prompt="hello world", **GREEDY)
    assert answer.usage is not None and bare.usage is not None
    assert answer.usage.completion_tokens == bare.usage.completion_tokens == 24
    assert answer.usage.prompt_tokens > bare.usage.prompt_tokens > 0
    assert answer.choices[0].finish_reason == bare.choices[0].finish_reason == "length"


async def test_one_token_is_possible(tiny: Running) -> None:
    async with a_client(tiny) as client:
        assert await chat(client, "hello", temperature=0, max_tokens=1)


async def test_token_ids_are_taken_and_checked(tiny: Running) -> None:
    async with a_client(tiny) as client:
        answer = await client.completions.create(model="tiny", prompt=[10, 20, 30], **GREEDY)
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == 3
        with pytest.raises(openai.BadRequestError) as refused:
            await client.completions.create(model="tiny", prompt=[10, 99_999], **GREEDY)
    assert refused.value.param == "prompt"
    assert "99999" in refused.value.message


async def test_an_empty_prompt_is_refused(tiny: Running) -> None:
    async with a_client(tiny) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.completions.create(model="tiny", prompt="")
    assert refused.value.param == "prompt"


@pytest.mark.parametrize("length", [3, 7, 12])
async def test_stops_never_leak_wherever_they_are_cut(tiny: Running, length: int) -> None:
    async with a_client(tiny) as client:
        whole = await chat(client, "hello world", **GREEDY)
        stop = whole[10 : 10 + length]
        expected = whole[: whole.index(stop)]
        for pieces in (
            await streamed(client, "hello world", stop=[stop], **GREEDY),
            [await chat(client, "hello world", stop=stop, **GREEDY)],
        ):
            assert "".join(pieces) == expected


async def test_a_seed_repeats_whatever_else_is_in_the_batch(tiny: Running) -> None:
    hot: dict[str, Any] = {"temperature": 1.0, "max_tokens": 24}
    async with a_client(tiny) as client:
        alone = await chat(client, "hello", seed=7, **hot)
        other = await chat(client, "hello", seed=8, **hot)
        crowd = [
            chat(client, "hello", seed=7, **hot),
            *(chat(client, prompt, seed=n, **hot) for n, prompt in enumerate(prompts(6))),
            *(chat(client, prompt, **GREEDY) for prompt in prompts(6)),
        ]
        among = (await asyncio.gather(*crowd))[0]
        unseeded = [await chat(client, "hello", **hot) for _ in range(2)]
    assert among == alone
    assert other != alone
    assert unseeded[0] != unseeded[1]


async def test_greedy_rows_stay_greedy_beside_hot_ones(tiny: Running) -> None:
    async with a_client(tiny) as client:
        alone = await chat(client, "hello", **GREEDY)
        mixed = await asyncio.gather(
            chat(client, "hello", **GREEDY),
            chat(client, "hello", temperature=2.0, max_tokens=24),
            chat(
                client, "hello", temperature=1.5, top_p=0.9, extra_body={"top_k": 5}, max_tokens=24
            ),
        )
    assert mixed[0] == alone


@pytest.mark.parametrize("narrow", [{"top_p": 0.0}, {"extra_body": {"top_k": 1}}])
async def test_the_narrowest_choice_is_greedy(tiny: Running, narrow: dict[str, Any]) -> None:
    async with a_client(tiny) as client:
        greedy = await chat(client, "hello", **GREEDY)
        assert await chat(client, "hello", temperature=1, max_tokens=24, **narrow) == greedy


async def test_a_prompt_beyond_the_context_is_refused_with_both_numbers(tiny: Running) -> None:
    async with a_client(tiny) as client:
        with pytest.raises(openai.BadRequestError) as too_long:
            await chat(client, "hello world " * 400, **GREEDY)
        with pytest.raises(openai.BadRequestError) as too_much:
            await chat(client, "hello", max_tokens=600)
    assert too_long.value.code == too_much.value.code == "context_length_exceeded"
    assert "512" in too_long.value.message
    assert "600" in too_much.value.message


async def test_without_a_limit_an_answer_ends_where_the_context_does(tiny: Running) -> None:
    async with a_client(tiny) as client:
        answer = await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hello"}], temperature=0
        )
    assert answer.usage is not None
    assert answer.usage.total_tokens == 512
    assert answer.choices[0].finish_reason == "length"


async def test_a_long_prompt_is_read_in_pieces_to_the_same_answer(
    tiny: Running, tmp_path: Path, tiny_model: Path
) -> None:
    long = "hello big green world " * 30
    config = mlx_config(tiny_model, engine_args=("--prefill-step", "16", "--prefill-batch", "2"))
    async with serving(tmp_path, config) as pieces, a_client(pieces) as in_pieces:
        async with a_client(tiny) as client:
            whole = await chat(client, long, **GREEDY)
        cut = await asyncio.gather(*(chat(in_pieces, long, **GREEDY) for _ in range(4)))
    assert cut == [whole] * 4


async def test_leaving_frees_the_engine_within_a_step(tmp_path: Path) -> None:
    shape = tinymodel.Shape(context=100_000, layers=4, hidden=128)
    model = tinymodel.make(tmp_path / "long", shape)
    async with serving(tmp_path, mlx_config(model, max_concurrency=2)) as server:
        body = {
            "model": "tiny",
            "prompt": "hello",
            "max_tokens": 50_000,
            "stream": True,
            "temperature": 0,
        }

        async def batch() -> float:
            return await server.metric("pippin_server_batch_size")

        async with server.client() as client:
            for _ in range(2):
                request = client.build_request("POST", "/v1/completions", json=body)
                response = await client.send(request, stream=True)
                assert response.status_code == 200
            assert await batch() == 2
        await eventually(batch, until=lambda size: size == 0, within=5)
        after = await server.post("/v1/completions", {**body, "max_tokens": 3, "stream": False})
        assert after.json()["usage"]["completion_tokens"] == 3


async def test_sigterm_finishes_the_streams_of_the_engine(tmp_path: Path, tiny_model: Path) -> None:
    async with serving(tmp_path, mlx_config(tiny_model)) as server, server.client() as client:
        body = {"model": "tiny", "prompt": "hello", **GREEDY, "max_tokens": 400, "stream": True}
        request = client.build_request("POST", "/v1/completions", json=body)
        stream = await client.send(request, stream=True)
        server.terminate()
        text = (await stream.aread()).decode()
        assert text.endswith("data: [DONE]\n\n")
        last = json.loads(text.split("data: ")[-2])
        assert last["choices"][0]["finish_reason"] == "length"
        assert await server.exit_code(within=30) == 0


async def test_a_context_longer_than_the_models_is_a_wrong_config(
    tmp_path: Path, tiny_model: Path
) -> None:
    config = mlx_config(tiny_model, model={"context_length": 4096})
    async with serving(tmp_path, config, wait="no") as server:
        assert await server.exit_code(within=60) == 78
        assert "4096" in server.termination_message
        assert "512" in server.termination_message


async def test_only_the_echo_engine_has_knobs(tiny: Running) -> None:
    assert (await tiny.get("/internal/echo")).status_code == 404


async def test_an_unknown_engine_argument_is_named(tmp_path: Path, tiny_model: Path) -> None:
    config = mlx_config(tiny_model, engine_args=("--turbo",))
    async with serving(tmp_path, config, wait="no") as server:
        assert await server.exit_code(within=60) == 78
        assert "--turbo" in server.termination_message
