"""A real Redis (or Valkey) of the test's own, on loopback, that can be killed and come back."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hiredis

from pippin_gateway.limiting.redis import Address
from support.eventually import eventually
from support.gateway import free_port

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "a password of the tests"


@dataclass
class Redis:
    """One server; its data lie in `directory`."""

    program: str
    directory: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/1"

    @property
    def password_file(self) -> Path:
        return self.directory / "password"

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.port, database=1, password_file=self.password_file)

    async def start(self) -> None:
        """Until it answers; with what it had written down before it ended."""
        self.password_file.write_text(PASSWORD + "\n")
        listening = ("--bind", "127.0.0.1", "--port", str(self.port), "--requirepass", PASSWORD)
        writing = ("--dir", str(self.directory), "--appendonly", "yes", "--save", "")
        self._spawn(*listening, *writing)
        await eventually(lambda: self.ask("PING") == "PONG", within=20)

    def _spawn(self, *arguments: str) -> None:
        with (self.directory / "redis.log").open("ab") as log:
            self.process = subprocess.Popen([self.program, *arguments], stdout=log, stderr=log)

    def ask(self, *command: str) -> Any:
        """A command's answer, by Redis' own protocol on a connection of its own; None: none."""
        reader = hiredis.Reader(encoding="utf-8")
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as link:
                parts: Any  # hiredis' types know commands of one word only
                for parts in (("AUTH", PASSWORD), ("SELECT", "1"), command):
                    link.sendall(hiredis.pack_command(parts))
                    while (answer := reader.gets()) is False:
                        reader.feed(link.recv(65536))
        except OSError:
            return None
        return answer

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def program() -> str:
    """Where hack/redis.sh says that one is."""
    told = subprocess.run([ROOT / "hack/redis.sh"], capture_output=True, text=True, check=True)
    return told.stdout.splitlines()[-1]


@asynccontextmanager
async def running_redis(directory: Path) -> AsyncIterator[Redis]:
    """Started; killed at the end."""
    redis = Redis(await asyncio.to_thread(program), directory)
    await redis.start()
    try:
        yield redis
    finally:
        redis.kill()
