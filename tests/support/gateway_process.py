"""A gateway as it runs in a Pod: its own process, told by a file, logged in by a token file."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from pippin_contract import native, wire
from pippin_contract.apikeys import MintedKey
from support.eventually import eventually
from support.gateway import ADMIN_TOKEN, free_port, signing_pem
from support.redis import PASSWORD, Redis


@dataclass
class Process:
    """One running gateway."""

    port: int
    process: asyncio.subprocess.Process
    log: Path
    http: httpx.AsyncClient = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def get(self, path: str) -> httpx.Response:
        """Fails the waiting probe, not the test, while nobody listens yet."""
        try:
            return await self.http.get(path)
        except httpx.TransportError as error:
            raise AssertionError(f"{error!r}; log: {self.log.read_text()[-2000:]}") from error

    async def ready(self) -> None:
        async def answers() -> bool:
            return (await self.get("/ready")).status_code == 200

        await eventually(answers, within=20)

    async def status(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.get("/status")).json()
        return found


async def ask(gateway: Process, key: MintedKey | str, **body: Any) -> httpx.Response:
    """One chat."""
    shown = key if isinstance(key, str) else key.key
    headers = {"authorization": f"Bearer {shown}"}
    asked = {"model": "qwen", "messages": [], **body}
    return await gateway.http.post("/v1/chat/completions", json=asked, headers=headers)


def configured(directory: Path, *, admin_token: str = ADMIN_TOKEN, **config: Any) -> dict[str, str]:
    """Files as a Pod has them under `directory`; returns the environment of a native Pod."""
    signing = directory / wire.SIGNING_KEY_DIR.lstrip("/")
    signing.mkdir(parents=True, exist_ok=True)
    pem = signing / wire.SIGNING_CURRENT
    if not pem.exists():  # the same for a gateway that starts again
        pem.write_bytes(signing_pem())
    admin = directory / wire.ADMIN_DIR.lstrip("/")
    admin.mkdir(parents=True, exist_ok=True)
    (admin / wire.ADMIN_TOKEN).write_text(admin_token)
    file = directory / wire.GATEWAY_CONFIG_FILE.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"version": 1, **config}))
    return {native.ROOT: str(directory), native.BIND_HOST: "127.0.0.1"}


@contextlib.asynccontextmanager
async def gateway_process(
    directory: Path, kubeconfig: Path, **config: Any
) -> AsyncIterator[Process]:
    """Started, not yet ready; ended at the end."""
    port = free_port()
    environ = {
        "PATH": os.environ["PATH"],
        "KUBECONFIG": str(kubeconfig),
        native.port_variable(wire.HTTP_PORT_NAME): str(port),
        **configured(directory, **config),
    }
    log = directory / "gateway.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pippin_gateway", "run"),
            env=environ,
            stdout=output,
            stderr=output,
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as http:
            yield Process(port=port, process=process, log=log, http=http)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def gateway_processes(
    directory: Path, kubeconfig: Path, redis: Redis, count: int
) -> AsyncIterator[list[Process]]:
    """So many that count limits together; ready."""
    async with contextlib.AsyncExitStack() as stack:
        made, pem = [], signing_pem()
        for number in range(count):
            root = directory / f"gateway-{number}"
            for place, name, content in (
                (wire.REDIS_SECRET_DIR, "password", PASSWORD.encode()),
                (wire.SIGNING_KEY_DIR, wire.SIGNING_CURRENT, pem),
            ):
                secret = root / place.lstrip("/")
                secret.mkdir(parents=True)
                (secret / name).write_bytes(content)
            starting = gateway_process(root, kubeconfig, redisUrl=redis.url)
            made.append(await stack.enter_async_context(starting))
        for process in made:
            await process.ready()
        yield made
