"""A connection to Redis or Valkey that never makes a request wait for long.

One connection, on which the commands of all requests of one turn of the event loop go out in one
write, and the answers come in their order. When an answer is late or an error, the connection is
given up: everything that waits fails at once, `up` is False, and a new one is tried until it works.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import hiredis
import structlog

#: Before the name of everything of ours.
PREFIX = "pippin:"
#: Seconds for an answer; a limit that takes longer to check costs more than it is worth.
PATIENCE = 0.5
#: So often is looked within that time. A gateway that is too busy to read looks less often, so that
#: it does not take its own slowness for Redis'.
LOOKS = 4
#: Seconds to connect, and the longest pause before the next try.
CONNECT, PAUSE = 2.0, 1.0
#: Seconds between two signs of life, and without one until a gateway counts as gone.
ALIVE, GONE = 2.0, 10.0

log = structlog.get_logger("pippin.redis")


class RedisGone(Exception):
    """It did not answer, or not with what was asked for."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where it is and who we are to it. The password is read anew for every connection."""

    host: str
    port: int
    database: int = 0
    username: str = ""
    password_file: Path | None = None
    tls: ssl.SSLContext | None = None


def address(url: str, password_file: Path, ca_file: Path) -> Address:
    """Of `redis[s]://[USER@]HOST[:PORT][/DATABASE]`. Raises ValueError that says what is wrong."""
    parts = urlsplit(url)
    database = parts.path.strip("/") or "0"
    if parts.scheme not in ("redis", "rediss") or not parts.hostname or not database.isdecimal():
        raise ValueError("redisUrl must look like redis://HOST:6379/0 or rediss://HOST:6379/0")
    if parts.password is not None:
        raise ValueError("redisUrl must not hold a password: that comes from a file")
    tls = None
    if parts.scheme == "rediss":
        tls = ssl.create_default_context(cafile=str(ca_file) if ca_file.exists() else None)
    return Address(
        host=parts.hostname,
        port=parts.port or 6379,
        database=int(database),
        username=unquote(parts.username or ""),
        password_file=password_file if password_file.exists() else None,
        tls=tls,
    )


@cache
def script(name: str) -> tuple[bytes, bytes]:
    """A script's text and the name by which Redis knows it."""
    text = (files(__package__) / f"{name}.lua").read_bytes()
    return text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()


SCRIPTS = ("take", "settle", "alive", "restore", "tally", "keep", "recall", "forget")


class Redis:
    """`run` connects, and again, until it is cancelled. `use` is for the log."""

    def __init__(
        self,
        where: Address,
        on_connected: Callable[[], Awaitable[object]],
        gateway: str,
        use: str = "limits",
    ) -> None:
        self._where = where
        self._on_connected = on_connected
        self._gateway = gateway.encode()
        self._use = use
        self._link: _Link | None = None
        self._greeted = False
        #: How many gateways there were when last counted.
        self.gateways = 1

    @property
    def up(self) -> bool:
        """Whether commands are worth a try."""
        return self._greeted and self._link is not None and not self._link.lost.done()

    async def run(self) -> None:
        pause, told = 0.05, ""
        while True:
            try:
                await self._serve()
            except (RedisGone, OSError, TimeoutError) as error:
                if self._greeted:
                    pause, told = 0.05, ""
                why = str(error) or f"no connection within {CONNECT:g} s"
                if why != told:
                    told = why
                    log.warning("redis.gone", use=self._use, host=self._where.host, why=why)
            finally:
                self._greeted = False
                if self._link is not None:
                    self._link.abort("this connection is over")
            await asyncio.sleep(random.uniform(pause / 2, pause))
            pause = min(pause * 2, PAUSE)

    async def _serve(self) -> None:
        """One connection, until it fails."""
        loop, where = asyncio.get_running_loop(), self._where
        async with asyncio.timeout(CONNECT):
            _, link = await loop.create_connection(
                lambda: _Link(loop), where.host, where.port, ssl=where.tls
            )
            self._link = link
            await self._greet(link)
            await self._alive()
            await self._on_connected()
            self._greeted = True
            await self._on_connected()  # once more, for what came meanwhile
        log.info("redis.connected", use=self._use, host=where.host, gateways=self.gateways)
        while not (await asyncio.wait({link.lost}, timeout=ALIVE))[0]:
            await self._alive()
        raise RedisGone(link.lost.result())

    async def _greet(self, link: _Link) -> None:
        where = self._where
        if where.password_file is not None:
            password = where.password_file.read_text().strip()
            user = (where.username,) if where.username else ()
            await link.call("AUTH", *user, password)
        if where.database:
            await link.call("SELECT", str(where.database))
        for name in SCRIPTS:
            await link.call("SCRIPT", "LOAD", script(name)[0])

    async def _alive(self) -> None:
        self.gateways = max(
            1, int(await self.run_script("alive", [], [self._gateway, b"%d" % GONE]))
        )

    async def run_script(self, name: str, keys: list[str], arguments: list[Any]) -> Any:
        """What the script returns. Raises RedisGone."""
        return await self.send_script(name, keys, arguments)

    def call(self, *parts: Any) -> asyncio.Future[Any]:
        """A command's answer; raises RedisGone."""
        if self._link is None:
            raise RedisGone("not connected")
        return self._link.call(*parts)

    def send_script(self, name: str, keys: list[str], arguments: list[Any]) -> asyncio.Future[Any]:
        """The same for who does not wait for it. Raises RedisGone when it is known to be away."""
        return self.call("EVALSHA", script(name)[1], b"%d" % len(keys), *keys, *arguments)


class _Link(asyncio.Protocol):
    """One connection. Any error in an answer ends it: what comes next would be guesswork."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._reader = hiredis.Reader()
        #: Each with the number of looks before it was sent.
        self._waiting: deque[tuple[int, asyncio.Future[Any]]] = deque()
        self._looks = 0
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        #: Why it ended.
        self.lost: asyncio.Future[str] = loop.create_future()

    def call(self, *parts: Any) -> asyncio.Future[Any]:
        """One command; the future fails with RedisGone."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        answer.add_done_callback(_retrieved)
        if self.lost.done():
            answer.set_exception(RedisGone(self.lost.result()))
            return answer
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(hiredis.pack_command(parts))
        self._waiting.append((self._looks, answer))
        return answer

    def abort(self, why: str) -> None:
        """End it; everything that waits fails."""
        if self._timer is not None:
            self._timer.cancel()
        if not self.lost.done():
            self.lost.set_result(why)
        while self._waiting:
            answer = self._waiting.popleft()[1]
            if not answer.done():
                answer.set_exception(RedisGone(why))
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it
        self._look()

    def connection_lost(self, error: Exception | None) -> None:
        self.abort("the connection ended")

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while self._waiting:
            try:
                reply = self._reader.gets()
            except hiredis.ProtocolError:
                return self.abort("it does not speak Redis' protocol")
            if reply is False:
                return None
            if isinstance(reply, hiredis.ReplyError):
                return self.abort(f"it answered: {reply}")
            answer = self._waiting.popleft()[1]
            if not answer.done():
                answer.set_result(reply)
        return None

    def _flush(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def _look(self) -> None:
        """At how long the oldest command waits."""
        self._looks += 1
        if self._waiting and self._looks - self._waiting[0][0] > LOOKS:
            return self.abort("it does not answer")
        self._timer = self._loop.call_later(PATIENCE / LOOKS, self._look)
        return None


def _retrieved(answer: asyncio.Future[Any]) -> None:
    """Nobody need look at the failure of what nobody waits for."""
    if not answer.cancelled():
        answer.exception()
