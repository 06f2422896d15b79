"""/v1/metrics, /internal/diagnostics, and metrics under the names of earlier servers."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from support.eventually import eventually
from support.promlint import problems
from support.servers import Running, echo_config, serving

pytestmark = pytest.mark.asyncio(loop_scope="package")

ASK = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}


async def told(server: Running, path: str) -> dict[str, Any]:
    answer = await server.get(path)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    datetime.fromisoformat(found["timestamp"])
    return found


async def test_figures_follow_what_is_asked(echo: Running) -> None:
    before = await told(echo, "/v1/metrics")
    for _ in range(5):
        assert (await echo.post("/v1/chat/completions", ASK)).status_code == 200
    await echo.get("/v1/models")  # no answer of the model
    after = await told(echo, "/v1/metrics?format=json")
    total = "total_requests"
    assert after["throughput"][total] == before["throughput"][total] + 5
    assert after["throughput"]["requests_per_second"] > 0
    assert after["throughput"]["window_seconds"] == 300
    latency = after["latency"]
    assert 0 < latency["p50_ms"] <= latency["p95_ms"] <= latency["p99_ms"] < 60_000
    assert after["uptime_seconds"] > before["uptime_seconds"] > 0
    assert after["memory"]["peak_mb"] >= after["memory"]["current_mb"] * 0.9 > 1
    assert after["cache"] == {"hits": 0, "misses": 0, "hit_rate": 0.0}


async def test_the_same_for_prometheus(echo: Running) -> None:
    answer = await echo.get("/v1/metrics?format=prometheus")
    assert answer.headers["content-type"].startswith("text/plain")
    names = {line.split()[2] for line in answer.text.splitlines() if line.startswith("# TYPE")}
    assert {
        "mlx_server_cache_hits_total",
        "mlx_server_cache_misses_total",
        "mlx_server_cache_hit_rate",
        "mlx_server_latency_p50_ms",
        "mlx_server_latency_p95_ms",
        "mlx_server_latency_p99_ms",
        "mlx_server_memory_current_mb",
        "mlx_server_memory_peak_mb",
        "mlx_server_memory_growth_mb",
        "mlx_server_throughput_rps",
        "mlx_server_uptime_seconds_total",
    } == names
    refused = await echo.get("/v1/metrics?format=xml")
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "format"


async def test_diagnostics_say_what_there_is(echo: Running) -> None:
    await echo.post("/v1/chat/completions", ASK)
    found = await told(echo, "/internal/diagnostics")
    assert found["status"] == "ok" and found["handler_initialized"] is True
    assert found["queue"] == {"active": 0, "pending": 0, "max_concurrency": 32}
    (model,) = found["models"]["stats"]
    assert found["models"]["count"] == 1
    assert (model["model_id"], model["family"], model["type"]) == ("echo", "bird", "chat")
    assert model["request_count"] >= 1
    assert datetime.fromisoformat(model["last_access"]) >= datetime.fromisoformat(
        model["created_at"]
    )
    assert found["config"]["context_length"] == 1000
    assert 0 <= found["diagnostics_latency_ms"] < 10


async def test_diagnostics_tell_of_the_gpus_memory_where_there_is_one(tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    line = "NVIDIA H100 80GB HBM3, 81920, 20480, 550.54.15, 9.0"
    program.write_text(f"#!/bin/sh\necho '{line}'\necho '{line}'\n")
    program.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    async with serving(tmp_path, echo_config(), env=env) as server:

        async def vram() -> dict[str, Any]:
            found: dict[str, Any] = (await told(server, "/internal/diagnostics"))["vram"]
            return found

        await eventually(lambda: _enabled(vram), within=10)
        assert await vram() == {
            "enabled": True,
            "total_gb": 160.0,
            "max_gb": 160.0,
            "available_gb": 120.0,
            "usage_percent": 25.0,
            "model_count": 1,
        }
        hardware = (await told(server, "/status"))["hardware"]
        assert [one["kind"] for one in hardware["accelerators"]] == ["cuda", "cuda"]


async def _enabled(vram: Callable[[], Awaitable[dict[str, Any]]]) -> bool:
    return (await vram())["enabled"] is True


async def test_status_tells_what_the_machine_has(echo: Running) -> None:
    hardware = (await told(echo, "/status"))["hardware"]
    assert hardware["memory_bytes"] == hardware["memory"]["usable"] > 0
    assert hardware["cpus"] == hardware["cpu"]["usable"] > 0
    assert (await told(echo, "/internal/diagnostics"))["vram"]["enabled"] is bool(
        [one for one in hardware["accelerators"] if one["used"] is not None]
    )


async def test_a_server_that_loads_says_so(tmp_path: Path) -> None:
    config = echo_config(echo={"load_seconds": 30})
    async with serving(tmp_path, config, wait="up") as server:
        found = await told(server, "/internal/diagnostics")
        assert found["status"] == "unhealthy" and found["reason"].startswith("Loading")
        assert found["models"] == {"count": 0, "stats": []}
        text = (await server.get("/metrics")).text
        assert 'hf_server_models_loaded{model="echo"} 0.0' in text, "also before any request"


async def test_the_names_of_earlier_servers_are_there_too(echo: Running) -> None:
    async def count(name: str, **labels: str) -> float:
        return await echo.metric(name, **labels)

    ok = {"model": "echo", "endpoint": "chat", "status": "200"}
    before = await count("hf_server_requests_total", **ok)
    failed = await count("hf_server_errors_total", model="echo", type="client")
    await echo.post("/v1/chat/completions", ASK)
    await echo.post("/v1/chat/completions", {**ASK, "messages": "none"})
    assert await count("hf_server_requests_total", **ok) == before + 1
    assert await count("hf_server_errors_total", model="echo", type="client") == failed + 1
    assert await count("hf_server_models_loaded", model="echo") == 1
    assert await count("hf_server_request_duration_seconds_count", endpoint="chat") > 0
    text = (await echo.get("/metrics")).text
    for name in ("cache_hits_total", "cache_misses_total", "hardware_utilization"):
        assert f"hf_server_{name}" in text
    assert "hf_server_model_load_duration_seconds" in text
    assert problems(text) == []
