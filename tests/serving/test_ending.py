"""How a server ends: nothing that runs is cut, nothing new begins, and the reason is told."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx

from support import tinymodel
from support.eventually import eventually
from support.servers import Running, echo_config, mlx_config, run_cli, serving, started

SLOW = {"tokens_per_second": 10}
LONG = {
    "model": "echo",
    "stream": True,
    "messages": [{"role": "user", "content": "word " * 20}],
}
SHORT = {"model": "echo", "messages": [{"role": "user", "content": "hi"}]}


async def open_stream(client: httpx.AsyncClient) -> httpx.Response:
    request = client.build_request("POST", "/v1/chat/completions", json=LONG)
    response = await client.send(request, stream=True)
    assert response.status_code == 200
    return response


async def refused(server: Running) -> bool:
    answer = await server.post("/v1/chat/completions", SHORT)
    return answer.status_code == 503 and "retry-after" in answer.headers


async def test_sigterm_lets_streams_finish_and_refuses_new_requests(tmp_path: Path) -> None:
    async with serving(tmp_path, echo_config(echo=SLOW)) as server, server.client() as client:
        stream = await open_stream(client)
        server.terminate()
        await eventually(lambda: refused(server), within=10)
        assert (await server.get("/ready")).status_code == 503
        assert (await server.get("/livez")).status_code == 200
        text = (await stream.aread()).decode()
        assert text.count('"content":" word"') == 19
        assert text.endswith("data: [DONE]\n\n")
        assert await server.exit_code() == 0


async def test_a_stream_that_outlasts_the_cap_ends_in_an_error_and_not_in_done(
    tmp_path: Path,
) -> None:
    config = echo_config(echo={"tokens_per_second": 1}, drain_timeout_seconds=0.5)
    async with serving(tmp_path, config) as server, server.client() as client:
        stream = await open_stream(client)
        server.terminate()
        text = (await stream.aread()).decode()
        assert "[DONE]" not in text
        last = json.loads(text.strip().rpartition("data: ")[2])
        assert last["error"]["code"] == "not_ready"
        assert last["request_id"]
        assert await server.exit_code() == 0


async def test_the_drain_command_waits_for_what_runs_and_the_server_stays(tmp_path: Path) -> None:
    async with serving(tmp_path, echo_config(echo=SLOW)) as server, server.client() as client:
        stream = await open_stream(client)
        port = server.url.rpartition(":")[2]
        drained = asyncio.create_task(asyncio.to_thread(run_cli, "drain", "--port", port))
        await eventually(lambda: refused(server), within=20)
        assert not drained.done()
        assert (await stream.aread()).decode().endswith("data: [DONE]\n\n")
        result = await drained
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout)["drained"] is True
        assert (await server.get("/ready")).json()["reason"].startswith("Draining")
        server.terminate()
        assert await server.exit_code() == 0


async def test_a_client_that_leaves_frees_its_slot(tmp_path: Path) -> None:
    config = echo_config(echo={"tokens_per_second": 1}, max_concurrency=1)
    async with serving(tmp_path, config) as server:
        async with server.client() as client:
            stream = await open_stream(client)
            assert (await server.get("/v1/queue/stats")).json()["active"] == 1
            await stream.aclose()

        async def free() -> bool:
            return not (await server.get("/v1/queue/stats")).json()["active"]

        await eventually(free, within=5)
        assert "Traceback" not in server.log


async def test_a_damaged_model_ends_the_process_naming_the_file(tmp_path: Path) -> None:
    model = tinymodel.make(tmp_path / "tiny")
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    async with serving(tmp_path, mlx_config(model), wait="no") as server:
        assert await server.exit_code(within=60) == 78
        assert server.termination_message.startswith("ModelCorrupted: model.safetensors: ")
        assert str(tmp_path) not in server.termination_message


async def test_a_model_that_no_library_can_load_is_said_to_be_corrupted(tmp_path: Path) -> None:
    model = tinymodel.make(tmp_path / "tiny")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "model_type": "unheard-of"}))
    async with serving(tmp_path, mlx_config(model), wait="no") as server:
        assert await server.exit_code(within=60) == 78
        assert server.termination_message.startswith("ModelCorrupted: ")
        assert "unheard-of" in server.termination_message


async def test_a_missing_directory_is_a_source_not_found(tmp_path: Path) -> None:
    async with serving(tmp_path, mlx_config(tmp_path / "nothing"), wait="no") as server:
        assert await server.exit_code(within=60) == 78
        assert server.termination_message.startswith("ModelSourceNotFound: ")


async def test_a_config_that_is_wrong_names_every_field(tmp_path: Path) -> None:
    (tmp_path / "server.json").write_text('{"version": 9, "name": "x", "engine": "magic"}')
    arguments = ["--config", str(tmp_path / "server.json")]
    async with started(tmp_path, arguments, wait="no") as server:
        assert await server.exit_code(within=60) == 78
        for field in ("version", "engine", "servedName"):
            assert field in server.termination_message
            assert field in server.log


async def test_a_port_that_is_taken_is_said_so(tmp_path: Path, echo: Running) -> None:
    port = echo.url.rpartition(":")[2]
    env = {"PIPPIN_PORT_HTTP": port}
    async with serving(tmp_path, echo_config(), wait="no", env=env) as server:
        assert await server.exit_code(within=60) == 78
        assert f"{port} is taken" in server.termination_message
