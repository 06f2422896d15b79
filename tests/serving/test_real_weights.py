"""A real model says what it must: SmolLM2-135M-Instruct on the CPU, greedy."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
import pytest_asyncio
import weights

from support.servers import Running, mlx_config, serving

STORY = "As the sun dipped into the horizon, casting a warm glow over the bustling streets"
ASKED = "Write a short story about a cat."
NAME = "smollm2"

# Weights are fetched and converted once; a busy machine makes a few tokens a second.
pytestmark = pytest.mark.timeout(600)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def smollm(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    model: Path = await asyncio.to_thread(weights.prepare)
    config = mlx_config(model, name=NAME, served_name=NAME, max_concurrency=4)
    async with serving(tmp_path_factory.mktemp("smollm"), config) as running:
        yield running


async def test_the_greedy_answer_has_the_expected_words_alone_and_in_a_batch(
    smollm: Running,
) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{smollm.url}/v1", api_key="none", max_retries=0, timeout=300
    ) as client:

        async def story() -> str:
            stream = await client.chat.completions.create(
                model=NAME,
                messages=[{"role": "user", "content": ASKED}],
                temperature=0,
                max_tokens=16,
                stream=True,
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        alone = await story()
        together = list(await asyncio.gather(story(), story(), story()))
    assert STORY.startswith(alone)
    assert len(alone) > 60
    assert together == [alone] * 3


async def test_the_matrix_products_are_accelerated_on_linux(smollm: Running) -> None:
    if sys.platform == "linux":
        assert "openblas/" in smollm.log
    else:
        assert "blas" not in smollm.log
