"""What a server with several models takes for settings, whom it lets load, and what it watches."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from pippin_contract.serverconfig import ServerConfig
from pippin_edge.clock import SYSTEM
from pippin_edge.errors import Unauthenticated
from pippin_server import cli
from pippin_server import settings as told
from pippin_server.app import Surroundings
from pippin_server.engines import registry
from pippin_server.engines.base import Prompt, Sampling
from pippin_server.models.discovery import discover
from pippin_server.several import Several, create
from support.eventually import eventually
from support.servers import echo_config, free_port

SETTINGS = {"engine": "echo", "access_log": False}


def verify(token: str) -> object:
    if token != "right":
        raise Unauthenticated("a wrong key")
    return token


def parrots(root: Path, *names: str, **knobs: object) -> None:
    for name in names:
        (root / name).mkdir()
        (root / name / "pippin.json").write_text(json.dumps({"engine": "echo", "echo": knobs}))


def a_house(
    root: Path, config: ServerConfig | None = None, *, with_keys: bool = False
) -> tuple[Several, Any]:
    config = config or echo_config()
    settings = told.load({**SETTINGS, "models_dir": root})
    around = Surroundings(verify if with_keys else None, SYSTEM, write_access_line=len)
    means = registry.Surroundings(root, "info")
    return create(settings, config, discover(root, config), means, around)


def a_client(app: Any, address: str = "127.0.0.1") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, client=(address, 1234))
    return httpx.AsyncClient(transport=transport, base_url="http://server")


@pytest.mark.parametrize("path", ["/models/load", "/models/unload"])
async def test_who_may_load_is_on_this_machine_or_has_a_key(tmp_path: Path, path: str) -> None:
    parrots(tmp_path, "a")
    body, right = {"model": "a"}, {"authorization": "Bearer right"}
    house, app = a_house(tmp_path, with_keys=False)
    for address, status in (("127.0.0.1", 200), ("203.0.113.7", 401)):
        async with a_client(app, address) as client:
            assert (await client.post(path, json=body)).status_code == status
            assert (await client.post(path, json=body, headers=right)).status_code == status
    await house.close()
    house, app = a_house(tmp_path, with_keys=True)
    for address in ("127.0.0.1", "203.0.113.7"):
        async with a_client(app, address) as client:
            assert (await client.post(path, json=body)).status_code == 401
            assert (await client.post(path, json=body, headers=right)).status_code == 200
    await house.close()


async def test_every_engine_is_watched(tmp_path: Path) -> None:
    parrots(tmp_path, "a")
    parrots(tmp_path, "stuck", wedgeAfter=1)
    house, app = a_house(tmp_path, echo_config(liveness_stall_seconds=0.001))
    for name in ("stuck", "a"):
        await house.load(name)
    assert house.not_alive() is None
    (stuck,) = [one for one in house.stands() if one.config.served_name == "stuck"]
    engine: Any = stuck.engine
    answer = engine.generate(Prompt(text="hi"), Sampling())
    waiting = asyncio.ensure_future(anext(answer))
    async with a_client(app) as client:
        await eventually(lambda: house.not_alive() is not None, within=10)
        live = await client.get("/livez")
        assert live.json()["reason"].endswith("(model 'stuck')")
        assert live.json()["reason"].startswith("EngineStalled")
        assert (await client.get("/health")).json()["models_healthy"] is False
        assert (await client.get("/status")).json()["components"]["engine"] == "dead"
        stalled = 'pippin_server_engine_stalled{engine="echo",model="%s"} %.1f\n'
        shown = (await client.get("/metrics")).text
        assert stalled % ("stuck", 1) in shown and stalled % ("a", 0) in shown
    waiting.cancel()
    await house.close()


def test_names_of_earlier_servers_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_SERVER_HOST", "127.0.0.2")
    monkeypatch.setenv("HF_SERVER_PORT", "8123")
    monkeypatch.setenv("HF_SERVER_LOG_LEVEL", "WARNING")
    found = told.load({})
    assert (found.host, found.port, found.log_level) == ("127.0.0.2", 8123, "warning")
    monkeypatch.setenv("PIPPIN_SERVER_PORT", "8124")
    assert told.load({"log_level": "info"}).port == 8124


def check(capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> dict[str, Any]:
    cli.main(["check", *arguments, "--port", str(free_port()), "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_directory_of_models_is_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--engine", "echo", "--models-dir", str(tmp_path)]
    assert check(capsys, arguments)["errors"] == [
        "models: no model is there: see `pippin-server discover`"
    ]
    parrots(tmp_path, "a", "b")
    (tmp_path / "b/pippin.json").write_text('{"engine": "vllm"}')
    found = check(capsys, arguments)
    assert found["valid"] is True
    assert found["warnings"] and all(words.startswith("model: b: ") for words in found["warnings"])


def test_settings_of_one_model_and_of_several_do_not_go_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = ["--models-dir", str(tmp_path), "--model", "x", "--name", "y", "--engine", "echo"]
    named = [line.partition(":")[0] for line in check(capsys, both)["errors"]]
    assert named == ["model", "name"]
    monkeypatch.setenv("PIPPIN_SERVER_ADAPTERS", '[{"name": "sql", "path": "/x"}]')
    adapted = check(capsys, [*both[:2], "--engine", "echo"])["errors"]
    assert [line.partition(":")[0] for line in adapted] == ["adapters"]
    monkeypatch.delenv("PIPPIN_SERVER_ADAPTERS")
    nowhere = ["--models-dir", str(tmp_path / "nowhere"), "--engine", "echo"]
    assert "No such file" in check(capsys, nowhere)["errors"][0]
    vllm = check(capsys, ["--models-dir", str(tmp_path), "--engine", "vllm"])
    assert any("one model" in words for words in vllm["errors"]), vllm
