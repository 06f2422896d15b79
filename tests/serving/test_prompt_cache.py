"""Prompts that begin alike: what clients, people and Prometheus are told, and real weights."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import openai
import pytest
import weights

from pippin_server.engines.base import Sampling
from pippin_server.engines.mlx.args import Args
from pippin_server.engines.mlx.batcher import MlxBatcher
from pippin_server.engines.mlx.job import Job
from pippin_server.engines.mlx.model import load
from pippin_server.engines.mlx.promptcache import PromptCache
from support.servers import Running

pytestmark = pytest.mark.asyncio(loop_scope="package")

GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 8}


def a_client(server: Running) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def words(seed: int, count: int = 60) -> str:
    """Nothing that another test has said."""
    return " ".join(str(number) for number in random.Random(seed).choices(range(1000), k=count))


def cached(usage: Any) -> int:
    return int(usage.prompt_tokens_details.cached_tokens)


async def test_usage_tells_the_cached_tokens_in_answers_and_in_streams(tiny: Running) -> None:
    prompt = words(1)
    async with a_client(tiny) as client:
        cold = await client.completions.create(model="tiny", prompt=prompt, **GREEDY)
        warm = await client.completions.create(model="tiny", prompt=prompt, **GREEDY)
        stream = await client.completions.create(
            model="tiny",
            prompt=prompt,
            stream=True,
            stream_options={"include_usage": True},
            **GREEDY,
        )
        chunks = [chunk async for chunk in stream]
    assert cold.usage is not None and warm.usage is not None
    assert cached(cold.usage) == 0
    assert 0 < warm.usage.prompt_tokens - cached(warm.usage) <= 32
    assert warm.usage.prompt_tokens == cold.usage.prompt_tokens
    assert cached(chunks[-1].usage) == cached(warm.usage)
    assert warm.choices[0].text == cold.choices[0].text
    assert "".join(c.choices[0].text for c in chunks if c.choices) == cold.choices[0].text


async def test_each_turn_of_a_chat_reads_only_what_is_new(tiny: Running) -> None:
    turns: list[Any] = [{"role": "system", "content": words(2, 30)}]
    before = 0
    async with a_client(tiny) as client:
        for turn in range(3):
            turns.append({"role": "user", "content": words(3 + turn, 12)})
            answer = await client.chat.completions.create(model="tiny", messages=turns, **GREEDY)
            assert answer.usage is not None
            assert before - 32 <= cached(answer.usage) <= before + GREEDY["max_tokens"]
            before = answer.usage.prompt_tokens
            turns.append({"role": "assistant", "content": answer.choices[0].message.content})
        assert cached(answer.usage) > 64


async def test_all_figures_tell_the_same(tiny: Running) -> None:
    async def figures() -> tuple[float, float]:
        return (
            await tiny.metric("pippin_server_prompt_cache_hits_total"),
            await tiny.metric("pippin_server_prompt_cache_misses_total"),
        )

    before = await figures()
    prompt = words(7)
    async with a_client(tiny) as client:
        answers = [
            await client.completions.create(model="tiny", prompt=prompt, **GREEDY) for _ in "ab"
        ]
    usages = [answer.usage for answer in answers if answer.usage is not None]
    hits = sum(cached(usage) for usage in usages)
    asked = sum(usage.prompt_tokens for usage in usages)
    after = await figures()
    assert (after[0] - before[0], after[1] - before[1]) == (hits, asked - hits)
    assert hits > 0
    assert await tiny.metric("hf_server_cache_hits_total", type="prompt") == after[0]
    assert await tiny.metric("hf_server_cache_misses_total", type="prompt") == after[1]
    for path in ("/status", "/v1/metrics", "/internal/diagnostics"):
        told = (await tiny.get(path)).json()["cache"]
        assert (told["hits"], told["misses"], told["enabled"]) == (*after, True)
        assert told["bytes"] == await tiny.metric("pippin_server_prompt_cache_bytes") > 0
        assert told["capacity_bytes"] >= told["bytes"]
        assert "reason" not in told
    assert await tiny.metric("pippin_server_prompt_cache_enabled") == 1
    assert f'"cached_tokens":{cached(usages[1])}' in tiny.access_lines.replace(" ", "")


async def test_status_says_what_works(tiny: Running) -> None:
    told = (await tiny.get("/status")).json()
    assert told["status"] == "ok"
    assert told["components"] == {"model": "ready", "engine": "alive", "admission": "open"}
    assert told["models"]["stats"][0]["model_id"] == "tiny"
    assert told["hardware"]["memory_bytes"] > 0


STORY = (
    "Mara kept the lighthouse at the end of the long pier. Every evening she climbed the stairs,"
    " cleaned the lamp and wrote the names of the passing ships into a book. One night a boat"
    " without a name came out of the fog, and"
)
EIGHT = [
    *(STORY + f" on its deck stood {n}" for n in range(4)),
    *(STORY[: 40 + 60 * n] for n in range(3)),
    "The capital of France is",
]


@pytest.mark.timeout(600)
async def test_real_weights_say_the_same_with_the_cache_and_without() -> None:
    path = await asyncio.to_thread(weights.prepare)
    await asyncio.to_thread(_compare, path)


def _compare(path: Path) -> None:
    """On one thread, as the engine has it."""
    model = load(path, Args())

    def engine(capacity: int) -> tuple[PromptCache, MlxBatcher]:
        cache = PromptCache(model.weights, capacity)
        limits = {"batch": 16, "prefill_batch": 8, "prefill_step": 512}
        return cache, MlxBatcher(model.weights, model.tokenizer, cache, **limits)

    cache, on = engine(1 << 30)
    _, off = engine(0)
    expected = _said(off, EIGHT)
    _said(on, [STORY])
    assert _said(on, EIGHT * 2) == expected * 2, "partly there, and sixteen at once"
    assert cache.hits > 300
    assert _said(on, EIGHT[:1]) == expected[:1], "all there, alone"
    stop = expected[0][6:10]
    assert _said(on, EIGHT[:1], stop=(stop,)) == [expected[0][: expected[0].index(stop)]]


def _said(batcher: MlxBatcher, prompts: list[str], stop: tuple[str, ...] = ()) -> list[str]:
    texts = dict.fromkeys(range(len(prompts)), "")
    greedy = Sampling(temperature=0, stop=stop)
    for ticket, prompt in enumerate(prompts):
        batcher.add(ticket, Job(list(batcher._tokenizer.encode(prompt)), 6, greedy))
    while batcher.size:
        for ticket, delta in batcher.step():
            assert not isinstance(delta, Exception)
            texts[ticket] += delta.text
    return list(texts.values())
