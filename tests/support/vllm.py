"""Servers with the vLLM engine, which live in an environment of their own: hack/vllm.sh."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import weights

from pippin_contract.serverconfig import ModelConfig, ServerConfig

from .servers import Running, serving

ROOT = Path(__file__).resolve().parents[2]
PYTHON = str(ROOT / ".venv-vllm/bin/python")
#: Without a compiler at work, as in the image; in the type in which a batch changes no token.
ARGUMENTS = ("--enforce-eager", "--dtype=float32", f"--kv-cache-memory-bytes={2**29}")

#: What vLLM finds out about a kind of model takes it 15 seconds; it keeps that.
LEARNT = {"VLLM_CACHE_ROOT": str(weights.cache_directory() / "vllm/learnt")}


#: A request that takes its time.
LONG = {
    "model": "smol",
    "stream": True,
    "max_tokens": 120,
    "temperature": 0,
    "messages": [{"role": "user", "content": "Write a short story about a cat."}],
    "ignore_eos": True,
}


async def open_stream(client: httpx.AsyncClient) -> httpx.Response:
    """LONG's answer, begun."""
    request = client.build_request("POST", "/v1/chat/completions", json=LONG, timeout=60)
    response = await client.send(request, stream=True)
    assert response.status_code == 200
    return response


def vllm_config(path: Path, *arguments: str, **fields: Any) -> ServerConfig:
    """A server named `smol` for the model at `path`, with a context of 512 tokens."""
    model = ModelConfig(path=str(path), **{"context_length": 512, **fields.pop("model", {})})
    defaults: dict[str, Any] = {"name": "smol", "served_name": "smol", "max_concurrency": 16}
    return ServerConfig(
        engine="vllm",
        engine_args=(*ARGUMENTS, *arguments),
        model=model,
        **{**defaults, **fields},
    )


@asynccontextmanager
async def vllm_serving(
    directory: Path, config: ServerConfig, *, wait: str = "ready", **settings: str
) -> AsyncIterator[Running]:
    """`settings`: further variables of the environment."""
    env = {"PIPPIN_SERVER_CACHE_DIR": str(directory / "cache"), **LEARNT, **settings}
    async with serving(directory, config, wait=wait, env=env, python=PYTHON) as running:
        offspring = list(descendants(running))
        try:
            yield running
        finally:
            for process in {*offspring, *descendants(running)}:
                _kill(process)


def descendants(server: Running) -> Iterator[psutil.Process]:
    """The processes that vLLM has started for this server."""
    try:
        yield from psutil.Process(server.process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return


def named(server: Running, part: str) -> list[psutil.Process]:
    """Those of them that call themselves so: EngineCore, Worker."""
    return [process for process in descendants(server) if part in _name(process)]


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
