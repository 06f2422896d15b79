"""What probes, scrapers and people see while a server loads, works, stalls and breaks."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from support.eventually import eventually
from support.servers import Running, echo_config, serving

HELLO = {"model": "echo", "messages": [{"role": "user", "content": "hi"}]}


async def test_a_ready_server_says_so_everywhere(echo: Running) -> None:
    health = await echo.get("/health")
    assert health.status_code == 200
    found = health.json()
    assert (found["status"], found["model_status"]) == ("ok", "initialized")
    assert (found["model_id"], found["models_healthy"]) == ("echo", True)
    assert found["warmup_completed"] is True
    assert found["latency_ms"] < 50
    assert (await echo.get("/ready")).status_code == 200
    assert (await echo.get("/livez")).status_code == 200


async def test_http_is_up_while_the_model_loads(tmp_path: Path) -> None:
    config = echo_config(echo={"load_seconds": 3})
    async with serving(tmp_path, config, wait="up") as server:
        loading = await server.get("/health")
        assert loading.status_code == 503
        assert loading.json()["status"] == "unhealthy"
        assert loading.json()["model_status"] == "loading"
        assert loading.json()["progress"]["message"] == "waiting as configured"
        assert loading.json()["reason"].startswith("Loading")
        assert (await server.get("/ready")).status_code == 503
        assert (await server.get("/livez")).status_code == 200
        refused = await server.post("/v1/chat/completions", HELLO)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "not_ready"
        assert int(refused.headers["retry-after"]) >= 1
        await eventually(server.is_ready, within=20)
        assert (await server.post("/v1/chat/completions", HELLO)).status_code == 200


async def test_a_wedged_engine_fails_liveness_but_an_idle_one_does_not(tmp_path: Path) -> None:
    config = echo_config(echo={"wedge_after": 2}, liveness_stall_seconds=0.5)
    async with serving(tmp_path, config) as server:
        await server.post("/v1/chat/completions", HELLO)
        await asyncio.sleep(0.7)  # longer than the stall: nobody waits, so nothing stands still
        assert (await server.get("/livez")).status_code == 200
        waiting = asyncio.create_task(server.post("/v1/chat/completions", HELLO))

        async def stalled() -> bool:
            return (await server.get("/livez")).status_code == 503

        await eventually(stalled, within=10)
        assert (await server.get("/livez")).json()["reason"].startswith("EngineStalled")
        assert (await server.get("/ready")).status_code == 503
        assert await server.metric("pippin_server_engine_stalled") == 1
        # The client gives up; the engine stands as still as before, and nobody else is let in.
        waiting.cancel()
        assert (await server.post("/v1/chat/completions", HELLO)).status_code == 503
        assert (await server.get("/livez")).status_code == 503


async def test_metrics_count_what_was_served(tmp_path: Path) -> None:
    async with serving(tmp_path, echo_config()) as server:
        body = {"model": "echo", "messages": [{"role": "user", "content": "one two three"}]}
        await server.post("/v1/chat/completions", body)
        await server.post("/v1/chat/completions", {**body, "stream": True})
        await server.post("/v1/chat/completions", {**body, "model": "secret-name"})
        asked = {"endpoint": "chat", "engine": "echo", "model": "echo"}
        assert await server.metric("pippin_server_requests_total", code="200", **asked) == 2
        assert await server.metric("pippin_server_requests_total", code="404", **asked) == 1
        assert await server.metric("pippin_server_request_duration_seconds_count", **asked) == 3
        assert await server.metric("pippin_server_prompt_tokens_total") == 6
        assert await server.metric("pippin_server_completion_tokens_total") == 6
        assert await server.metric("pippin_server_time_to_first_token_seconds_count") == 2
        assert await server.metric("pippin_server_inter_token_seconds_count") == 4
        assert await server.metric("pippin_server_requests_in_flight") == 0
        assert await server.metric("pippin_server_models_loaded") == 1
        assert await server.metric("pippin_build_info", component="server") == 1
        assert "secret-name" not in (await server.get("/metrics")).text


async def test_queue_stats_show_who_runs_and_who_waits(tmp_path: Path) -> None:
    config = echo_config(max_concurrency=1, max_queue=1, echo={"first_token_seconds": 20})
    async with serving(tmp_path, config) as server:
        asked = [asyncio.create_task(server.post("/v1/chat/completions", HELLO)) for _ in range(2)]

        async def full() -> bool:
            stats = (await server.get("/v1/queue/stats")).json()
            return (stats["active"], stats["pending"]) == (1, 1)

        await eventually(full, within=10)
        refused = await server.post("/v1/chat/completions", HELLO)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert await server.metric("pippin_server_queue_depth") == 1
        for task in asked:
            task.cancel()

        async def empty() -> bool:
            stats = (await server.get("/v1/queue/stats")).json()
            return (stats["active"], stats["pending"]) == (0, 0)

        await eventually(empty, within=10)


async def test_who_waits_too_long_for_a_place_is_told_to_come_back(tmp_path: Path) -> None:
    config = echo_config(
        max_concurrency=1, queue_timeout_seconds=0.3, echo={"first_token_seconds": 20}
    )
    async with serving(tmp_path, config) as server:
        first = asyncio.create_task(server.post("/v1/chat/completions", HELLO))

        async def busy() -> bool:
            return bool((await server.get("/v1/queue/stats")).json()["active"])

        await eventually(busy, within=10)
        refused = await server.post("/v1/chat/completions", HELLO)
        assert refused.status_code == 503
        assert "0.3 seconds" in refused.json()["error"]["message"]
        first.cancel()


@pytest.mark.parametrize(
    ("knobs", "status", "code"),
    [
        ({"error_percent": 100}, 500, "engine_failed"),
        ({"out_of_memory_after": 1}, 503, "out_of_memory"),
    ],
)
async def test_an_engine_that_fails_before_the_first_token_is_a_clean_status(
    tmp_path: Path, knobs: dict[str, int], status: int, code: str
) -> None:
    async with serving(tmp_path, echo_config(echo=knobs)) as server:
        for stream in (False, True):
            answer = await server.post("/v1/chat/completions", {**HELLO, "stream": stream})
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert (await server.get("/livez")).status_code == 200


async def test_a_crash_on_demand_ends_the_process(tmp_path: Path) -> None:
    async with serving(tmp_path, echo_config(echo={"crash_after": 1})) as server:
        with pytest.raises(httpx.TransportError):
            await server.post("/v1/chat/completions", HELLO)
        assert await server.exit_code() == 70


async def test_the_access_log_has_a_line_a_request_and_nothing_private(tmp_path: Path) -> None:
    async with serving(tmp_path, echo_config()) as server:
        body = {"model": "echo", "messages": [{"role": "user", "content": "my secret words"}]}
        headers = {"authorization": "Bearer very-private", "x-request-id": "find-me"}
        await server.post("/v1/chat/completions", body, headers=headers)
        await server.get("/ready")
        await eventually(lambda: "find-me" in server.access_lines, within=10)
        assert '"completion_tokens":3' in server.access_lines
        assert '"path":"/v1/chat/completions"' in server.access_lines
        assert "/ready" not in server.access_lines
        for private in ("secret", "very-private"):
            assert private not in server.access_lines + server.log
