"""The command line and the environment: standalone servers, `check`, the older names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pippin_contract.serverconfig import dump
from support.servers import free_port, mlx_config, run_cli, started


async def test_a_directory_is_served_under_its_own_name(tmp_path: Path, tiny_model: Path) -> None:
    arguments = ["--model", str(tiny_model), "--prompt-cache-bytes", "3Mi"]
    arguments += ["--memory-limit", "200Mi", "--memory-check", "warn"]
    async with started(tmp_path, arguments) as server:
        (model,) = (await server.get("/v1/models")).json()["data"]
        assert model["id"] == "tiny"
        status = (await server.get("/status")).json()
        assert status["cache"]["capacity_bytes"] == 3 * 2**20
        memory = status["memory"]  # too little, and tried all the same, as it is told
        assert (memory["limit_bytes"], memory["sequences_that_fit"]) == (200 * 2**20, 0)
        assert memory["weight_bytes"] > 0 and memory["kv_bytes_per_token"] == 2 * 2 * 2 * 16 * 4
        assert "memory.tight" in server.log and "256 MiB of program" in server.log
        answer = await server.post(
            "/v1/completions", {"model": "tiny", "prompt": "hello", "max_tokens": 3}
        )
        assert answer.json()["usage"]["completion_tokens"] == 3


async def test_the_names_of_earlier_servers_keep_working(tmp_path: Path, tiny_model: Path) -> None:
    env = {
        "MODEL_PATH": str(tiny_model),
        "CONTEXT_LENGTH": "100",
        "MAX_CONCURRENCY": "3",
        "MLX_WARMUP": "false",
        "HF_SERVER_ENABLE_CACHING": "false",
    }
    async with started(tmp_path, ["--name", "mine"], env=env) as server:
        (model,) = (await server.get("/v1/models")).json()["data"]
        assert (model["id"], model["context_length"]) == ("mine", 100)
        assert (await server.get("/v1/queue/stats")).json()["max_concurrency"] == 3
        health = (await server.get("/health")).json()
        assert (health["warmup_enabled"], health["warmup_completed"]) == (False, False)
        body = {"model": "mine", "prompt": "hello " * 60, "max_tokens": 3}
        for _ in range(2):
            usage = (await server.post("/v1/completions", body)).json()["usage"]
            assert usage["prompt_tokens_details"] == {"cached_tokens": 0}
        told = (await server.get("/status")).json()["cache"]
        assert told["reason"] == "promptCache.enabled is false"
        assert (told["enabled"], told["bytes"], told["hits"], told["misses"]) == (False, 0, 0, 0)
        assert await server.metric("pippin_server_prompt_cache_enabled") == 0
        assert "prompt_cache.off" in server.log


def test_check_reports_a_good_config(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "server.json").write_text(dump(mlx_config(tiny_model)))
    port = str(free_port())
    done = run_cli("check", "--config", str(tmp_path / "server.json"), "--port", port, "--json")
    assert done.returncode == 0, done.stdout
    report = json.loads(done.stdout)
    assert report["valid"] is True
    assert (report["errors"], report["warnings"]) == ([], [])
    assert {check["name"] for check in report["checks"]} == {"engine", "port", "model"}


def test_check_reports_everything_wrong_at_once(tmp_path: Path) -> None:
    config = mlx_config(tmp_path / "nothing", engine_args=("--turbo",))
    (tmp_path / "server.json").write_text(dump(config))
    arguments = ["check", "--config", str(tmp_path / "server.json"), "--host", "0.0.0.0"]
    as_json = run_cli(*arguments, "--port", str(free_port()), "--json")
    assert as_json.returncode == 78
    report = json.loads(as_json.stdout)
    assert report["valid"] is False
    assert len(report["errors"]) == 2
    assert any("--turbo" in error for error in report["errors"])
    assert any("no such directory" in error for error in report["errors"])
    assert any("everyone who reaches" in warning for warning in report["warnings"])
    as_text = run_cli(*arguments, "--port", str(free_port()))
    assert "2 to mend" in as_text.stdout


@pytest.mark.parametrize(
    ("arguments", "env", "named"),
    [
        (["--port", "70000", "--engine", "echo"], {"MAX_CONCURRENCY": "x"}, "port"),
        (["--port", "70000", "--engine", "echo"], {"MAX_CONCURRENCY": "x"}, "MAX_CONCURRENCY"),
        ([], {}, "--model"),
        (["--config", "/nowhere/server.json"], {}, "server.json"),
        (["--engine", "echo"], {"PIPPIN_SERVER_API_KEYS_FILE": "/nowhere/keys"}, "api_keys_file"),
    ],
)
def test_settings_that_are_wrong_are_named(
    arguments: list[str], env: dict[str, str], named: str
) -> None:
    done = run_cli("check", *arguments, env=env)
    assert done.returncode == 78
    assert named in done.stderr


async def test_a_model_that_does_not_fit_ends_with_the_numbers_and_what_helps(
    tmp_path: Path, tiny_model: Path
) -> None:
    arguments = ["--model", str(tiny_model), "--memory-limit", "200Mi"]
    async with started(tmp_path, arguments, wait="nothing") as server:
        assert await server.exit_code(within=60) == 78
        reason, _, words = server.termination_message.partition(": ")
        assert reason == "InsufficientMemory"
        assert "256 MiB of program" in words and "the setting memory_limit is 200 MiB" in words
        assert "MEMORY_CHECK=warn" in words
    told = json.loads(run_cli("check", *arguments, "--port", str(free_port()), "--json").stdout)
    assert told["valid"] is False and told["errors"] == [f"memory: {words}"]


def test_drain_without_a_server_fails(tmp_path: Path) -> None:
    done = run_cli("drain", "--port", str(free_port()))
    assert done.returncode == 1
    assert "nothing to drain" in done.stderr


def test_hardware_says_what_is_here_and_which_engine_takes_it(tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'Tesla T4, 15360, 0, 550.54.15, 7.5'\n")
    program.chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    told = json.loads(run_cli("hardware", "--json", env=path).stdout)
    assert told["memory"]["usable"] > 0 and told["cpu"]["usable"] > 0
    assert "Tesla T4" in [one["name"] for one in told["accelerators"]]
    done = run_cli("hardware", env=path)
    assert done.returncode == 0, done.stderr
    assert "cuda       Tesla T4, 15.0 GiB" in done.stdout
    assert f"engine     {told['choice']['engine']} on" in done.stdout
