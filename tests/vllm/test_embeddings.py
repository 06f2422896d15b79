"""Embeddings of a real model, MiniLM, by the official client."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
import pytest_asyncio
import weights

from support.servers import Running
from support.vllm import vllm_config, vllm_serving

pytestmark = [pytest.mark.timeout(400), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def minilm(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    model: Path = await asyncio.to_thread(weights.prepare, source=weights.MINILM)
    config = vllm_config(model, model={"task": "embedding", "context_length": 256})
    async with vllm_serving(tmp_path_factory.mktemp("minilm"), config) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def client(minilm: Running) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{minilm.url}/v1", api_key="none", max_retries=0, timeout=60
    ) as found:
        yield found


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


async def test_what_means_the_same_is_near(client: openai.AsyncOpenAI) -> None:
    answer = await client.embeddings.create(model="smol", input=["cat", "kitten", "stocks"])
    cat, kitten, stocks = (item.embedding for item in answer.data)
    assert len(cat) == 384
    # As with MLX: tests/serving/test_embeddings.py.
    assert cat[:4] == pytest.approx([0.0373304, 0.0511618, -0.0003061, 0.0602099], abs=1e-4)
    # What mean pooling over the model's last layer gives, as its card says to do.
    assert cosine(cat, kitten) == pytest.approx(0.788, abs=0.002)
    assert cosine(cat, stocks) == pytest.approx(0.203, abs=0.002)
    assert answer.usage.prompt_tokens > 3


async def test_numbers_come_in_base64_and_in_decimal(client: openai.AsyncOpenAI) -> None:
    decimal = await client.embeddings.create(model="smol", input="cat", encoding_format="float")
    encoded = await client.embeddings.create(model="smol", input="cat", encoding_format="base64")
    assert isinstance(encoded.data[0].embedding, str)
    assert len(encoded.data[0].embedding) == 384 * 4 * 4 // 3
    assert len(decimal.data[0].embedding) == 384


async def test_a_chat_is_refused(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(
            model="smol", messages=[{"role": "user", "content": "hi"}]
        )
    assert "embedding" in refused.value.message
