"""How servers with vLLM, and vLLM's processes, start and end: each test has its own."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import psutil
import pytest

from pippin_contract.serverconfig import PromptCacheConfig
from support.eventually import eventually
from support.servers import run_cli
from support.vllm import LONG, PYTHON, descendants, named, open_stream, vllm_config, vllm_serving

pytestmark = [pytest.mark.timeout(400)]


async def test_an_engine_that_dies_ends_its_streams_in_an_error(
    tmp_path: Path, smollm: Path
) -> None:
    async with vllm_serving(tmp_path, vllm_config(smollm)) as server, server.client() as client:
        stream = await open_stream(client)
        (engine,) = named(server, "EngineCore")
        engine.kill()
        text = (await stream.aread()).decode()
        assert "[DONE]" not in text
        last = json.loads(text.strip().rpartition("data: ")[2])
        assert last["error"]["code"] == "not_ready"
        assert last["request_id"]
        alive = await server.get("/livez")
        assert (alive.status_code, alive.json()["reason"].split(":")[0]) == (503, "EngineDead")
        later = await server.post("/v1/chat/completions", LONG)
        assert later.status_code == 503
        assert "retry-after" in later.headers


async def test_sigterm_lets_streams_finish_and_leaves_no_process(
    tmp_path: Path, smollm: Path
) -> None:
    # The prompt cache is off, to see that too: a server of its own for it takes long to start.
    config = vllm_config(smollm, prompt_cache=PromptCacheConfig(enabled=False))
    async with vllm_serving(tmp_path, config) as server, server.client() as client:
        body = {"model": "smol", "prompt": "One, two, three, four. " * 40, "max_tokens": 1}
        for _ in range(2):
            assert (await server.post("/v1/completions", body)).status_code == 200
        assert (await server.get("/status")).json()["cache"]["hits"] == 0
        stream = await open_stream(client)
        children = list(descendants(server))
        assert children
        server.terminate()
        text = (await stream.aread()).decode()
        assert text.endswith("data: [DONE]\n\n")
        assert await server.exit_code(within=30) == 0
        assert await eventually(lambda: not any(map(runs, children)), within=10)


async def test_a_killed_server_leaves_no_engine_behind(tmp_path: Path, smollm: Path) -> None:
    async with vllm_serving(tmp_path, vllm_config(smollm), wait="up") as server:
        assert await eventually(lambda: bool(named(server, "Worker")), within=120)
        children = list(descendants(server))
        server.process.send_signal(signal.SIGKILL)
        assert await eventually(lambda: not any(map(runs, children)), within=30)


def runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_a_flag_that_vllm_does_not_know_is_named(tmp_path: Path, smollm: Path) -> None:
    config = vllm_config(smollm, "--no-such-flag=1")
    async with vllm_serving(tmp_path, config, wait="nothing") as server:
        assert await server.exit_code(within=120) == 78
        assert server.termination_message.startswith("ConfigInvalid: ")
        assert "--no-such-flag" in server.termination_message


async def test_check_knows_vllms_flags(tmp_path: Path, smollm: Path) -> None:
    arguments = ["check", "--json", "--engine=vllm", f"--model={smollm}", "--port=0"]
    env = {"PIPPIN_SERVER_CACHE_DIR": str(tmp_path)}
    told = await asyncio.to_thread(
        run_cli, *arguments, "--engine-arg=--port=1", env=env, python=PYTHON
    )
    assert told.returncode == 78, told.stderr
    (problem,) = json.loads(told.stdout)["errors"]
    assert "--port cannot be given" in problem


async def test_the_cause_of_a_failed_start_is_told_by_whom_it_happened_to(
    tmp_path: Path, smollm: Path
) -> None:
    """vLLM's own process knows that the cache is too small; the server passes it on."""
    config = vllm_config(smollm, "--kv-cache-memory-bytes=1000000")
    async with vllm_serving(tmp_path, config, wait="nothing") as server:
        assert await server.exit_code(within=240) in (75, 78)
        assert server.termination_message.startswith("OutOfMemory: ")
        assert "cache blocks" in server.termination_message
        assert str(smollm) not in server.termination_message
