"""Real server processes on real sockets, started, watched and ended by tests."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from pippin_contract import native
from pippin_contract.serverconfig import EchoConfig, ModelConfig, ServerConfig, dump

from .eventually import eventually

#: Seconds for a server to come up on a busy machine.
START = 60.0
#: The same for one whose engine is as heavy as vLLM.
SLOW = 240.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def echo_config(**fields: Any) -> ServerConfig:
    """An echo server named `echo`; knobs as `echo=dict(...)`."""
    knobs = EchoConfig(**fields.pop("echo", {}))
    defaults: dict[str, Any] = {"name": "echo", "served_name": "echo", "engine": "echo"}
    return ServerConfig(**{**defaults, **fields}, echo=knobs)


def mlx_config(path: Path, **fields: Any) -> ServerConfig:
    """An MLX server named `tiny` for the model at `path`."""
    model = ModelConfig(path=str(path), **fields.pop("model", {}))
    defaults: dict[str, Any] = {"name": "tiny", "served_name": "tiny", "engine": "mlx"}
    return ServerConfig(**{**defaults, **fields}, model=model)


class Ended(Exception):
    """The server is not there any more; its last words."""


@dataclass
class Running:
    """A server process."""

    process: subprocess.Popen[bytes]
    url: str
    directory: Path

    @property
    def termination_message(self) -> str:
        path = self.directory / "termination-log"
        return path.read_text() if path.exists() else ""

    @property
    def log(self) -> str:
        return (self.directory / "stderr").read_text()

    @property
    def access_lines(self) -> str:
        return (self.directory / "stdout").read_text()

    def client(self, **options: Any) -> httpx.AsyncClient:
        """Without TLS there are no authorities to be read, which takes 60 ms each time."""
        return httpx.AsyncClient(base_url=self.url, timeout=30, verify=False, **options)

    async def get(self, path: str) -> httpx.Response:
        async with self.client() as client:
            return await client.get(path)

    async def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        async with self.client() as client:
            return await client.post(path, json=body, **options)

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        total = 0.0
        for line in (await self.get("/metrics")).text.splitlines():
            if line.partition("{")[0] == name and all(pair in line for pair in wanted):
                total += float(line.rpartition(" ")[2])
        return total

    async def is_ready(self) -> bool:
        return await self._status("/ready") == 200

    async def is_up(self) -> bool:
        return await self._status("/livez") is not None

    async def _status(self, path: str) -> int | None:
        if self.process.poll() is not None:
            raise Ended(f"exit {self.process.returncode}: {self.log[-3000:]}")
        try:
            return (await self.get(path)).status_code
        except httpx.TransportError:
            return None

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def exit_code(self, within: float = 20) -> int:
        await eventually(lambda: self.process.poll() is not None, within=within)
        code: int = self.process.returncode
        return code


@asynccontextmanager
async def serving(
    directory: Path,
    config: ServerConfig,
    *,
    wait: str = "ready",
    env: dict[str, str] | None = None,
    python: str = sys.executable,
) -> AsyncIterator[Running]:
    """`pippin-server serve --config`; `wait`: ready, up (HTTP answers) or nothing."""
    (directory / "server.json").write_text(dump(config))
    arguments = ["--config", str(directory / "server.json")]
    async with started(directory, arguments, wait=wait, env=env, python=python) as running:
        yield running


@asynccontextmanager
async def started(
    directory: Path,
    arguments: list[str],
    *,
    wait: str = "ready",
    env: dict[str, str] | None = None,
    python: str = sys.executable,
) -> AsyncIterator[Running]:
    """`pippin-server serve` with these arguments, and killed at the end."""
    port = free_port()
    command = [python, "-m", "pippin_server", "serve", *arguments]
    process = _spawn(directory, command, _environment(directory, port, env or {}))
    running = Running(process, f"http://127.0.0.1:{port}", directory)
    try:
        if wait == "ready":
            await eventually(running.is_ready, within=START if python == sys.executable else SLOW)
        elif wait == "up":
            await eventually(running.is_up, within=START)
        yield running
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)


def _spawn(
    directory: Path, command: list[str], environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    with (directory / "stdout").open("wb") as out, (directory / "stderr").open("wb") as err:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=environment,
        )


def _environment(directory: Path, port: int, more: dict[str, str]) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PIPPIN_", "SERVER_"))}
    return {
        **kept,
        native.BIND_HOST: "127.0.0.1",
        native.port_variable("http"): str(port),
        native.TERMINATION_LOG: str(directory / "termination-log"),
        **more,
    }


def run_cli(
    *arguments: str, env: dict[str, str] | None = None, python: str = sys.executable
) -> subprocess.CompletedProcess[str]:
    """`pippin-server …` to its end."""
    return subprocess.run(
        [python, "-m", "pippin_server", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **(env or {})},
    )
