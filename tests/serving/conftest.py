"""Servers for the tests of this folder, each started once where tests only ask."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from pippin_contract.serverconfig import AdapterConfig
from support import tinymodel
from support.servers import Running, echo_config, mlx_config, serving


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def echo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """An echo server with the alias `parrot`, the adapter `sql` and a context of 1,000 tokens."""
    config = echo_config(
        aliases=("parrot",),
        adapters=(AdapterConfig(name="sql", uri="hf://org/sql"),),
        model={"context_length": 1000, "family": "bird", "tags": ("test",), "description": "Says."},
    )
    async with serving(tmp_path_factory.mktemp("echo"), config) as running:
        yield running


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tinymodel.make(tmp_path_factory.mktemp("weights") / "tiny")


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def tiny(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path
) -> AsyncIterator[Running]:
    """An MLX server with the tiny random model, 16 at a time."""
    config = mlx_config(tiny_model, max_concurrency=16)
    async with serving(tmp_path_factory.mktemp("tiny"), config) as running:
        yield running
