"""One server with real weights for the tests that only ask."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
import pytest_asyncio
import weights

from support.servers import Running
from support.vllm import vllm_config, vllm_serving


@pytest.fixture(scope="session")
def smollm() -> Path:
    return weights.prepare()


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def smol(tmp_path_factory: pytest.TempPathFactory, smollm: Path) -> AsyncIterator[Running]:
    """SmolLM2 with the alias `tiny`, able to call tools; it may stand still for 3 seconds."""
    config = vllm_config(
        smollm,
        "--enable-auto-tool-choice",
        "--tool-call-parser=hermes",
        aliases=("tiny",),
        liveness_stall_seconds=3,
    )
    async with vllm_serving(tmp_path_factory.mktemp("smol"), config) as running:
        yield running


@pytest_asyncio.fixture
async def client(smol: Running) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{smol.url}/v1", api_key="none", max_retries=0, timeout=120
    ) as found:
        yield found
