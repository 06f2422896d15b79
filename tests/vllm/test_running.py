"""How a server with vLLM is watched, and how it and vLLM's processes end."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import httpx
import psutil
import pytest

from support.eventually import eventually
from support.promlint import problems
from support.servers import Running, run_cli
from support.vllm import PYTHON, descendants, named, vllm_config, vllm_serving

pytestmark = [pytest.mark.timeout(400), pytest.mark.asyncio(loop_scope="package")]

LONG = {
    "model": "smol",
    "stream": True,
    "max_tokens": 120,
    "temperature": 0,
    "messages": [{"role": "user", "content": "Write a short story about a cat."}],
    "ignore_eos": True,
}


async def open_stream(client: httpx.AsyncClient) -> httpx.Response:
    request = client.build_request("POST", "/v1/chat/completions", json=LONG, timeout=60)
    response = await client.send(request, stream=True)
    assert response.status_code == 200
    return response


async def is_idle(server: Running) -> bool:
    return (
        await server.metric("pippin_server_requests_in_flight") == 0
        and await server.metric("vllm_num_requests_running") == 0
    )


async def test_the_metrics_count_and_have_names_that_prometheus_wants(smol: Running) -> None:
    before = await smol.metric("pippin_server_completion_tokens_total")
    answer = await smol.post("/v1/completions", {"model": "smol", "prompt": "a", "max_tokens": 5})
    assert answer.status_code == 200
    assert await smol.metric("pippin_server_completion_tokens_total") == before + 5
    assert await smol.metric("vllm_generation_tokens_total") == before + 5
    assert await smol.metric("pippin_server_time_to_first_token_seconds_count") > 0
    assert await smol.metric("pippin_server_models_loaded", engine="vllm") == 1
    assert problems((await smol.get("/metrics")).text) == []


async def test_its_lines_in_the_log_are_ours(smol: Running) -> None:
    """vLLM's, of all its processes, as JSON; and ours are not lost behind them."""
    assert '"event": "model.ready"' in smol.log
    lines = [json.loads(line) for line in smol.log.splitlines() if line.startswith("{")]
    assert {"vllm.config.model", "vllm.v1.engine.core"} <= {line["logger"] for line in lines}


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_frees_its_place_and_the_engine(
    smol: Running, stream: bool
) -> None:
    async def at_work() -> bool:
        return await smol.metric("vllm_num_requests_running") == 1

    asking = asyncio.create_task(
        smol.post("/v1/chat/completions", {**LONG, "max_tokens": 400, "stream": stream})
    )
    assert await eventually(at_work, within=10)
    asking.cancel()
    with pytest.raises((asyncio.CancelledError, httpx.HTTPError)):
        await asking
    # All of it would take the engine four times as long.
    assert await eventually(lambda: is_idle(smol), within=5)


async def test_an_engine_that_stands_still_is_told_and_goes_on(smol: Running) -> None:
    (engine,) = named(smol, "EngineCore")
    async with smol.client() as client:
        stream = await open_stream(client)
        engine.suspend()
        try:
            await eventually(lambda: stalled(smol), within=15)
        finally:
            engine.resume()
        text = (await stream.aread()).decode()
    assert text.endswith("data: [DONE]\n\n")
    assert (await smol.get("/livez")).status_code == 200


async def stalled(server: Running) -> bool:
    answer = await server.get("/livez")
    return answer.status_code == 503 and "EngineStalled" in answer.json()["reason"]


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
    async with vllm_serving(tmp_path, vllm_config(smollm)) as server, server.client() as client:
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
