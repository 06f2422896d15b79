"""Mixed traffic through gateways whose replicas and Redis come and go, and what became of it."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from pippin_contract.apikeys import MintedKey
from support.gateway_process import Process
from support.gateway_world import World
from support.redis import Redis
from support.servers import Running, echo_config, serving

CHAT = "/v1/chat/completions"
#: Requests a minute of the key that is limited.
LIMIT = 30
#: Seconds after a replica's end within which a stream may have been its own.
AFTER_A_KILL = 3.0


class Replica:
    """A server process and its Pod, whose status is written by hand as a kubelet would."""

    def __init__(self, world: World, number: int, directory: Path) -> None:
        self.name = f"qwen-{number}"
        self._world = world
        self._directory = directory
        self._stack = AsyncExitStack()
        self._server: Running | None = None
        directory.mkdir()

    async def start(self) -> None:
        knobs = {"first_token_seconds": 0.02, "tokens_per_second": 200}
        config = echo_config(served_name="qwen", echo=knobs, max_concurrency=64)
        self._server = await self._stack.enter_async_context(serving(self._directory, config))
        await self._says(ready=True)

    async def ends(self, how: signal.Signals) -> None:
        """Killed, or ended in order: then it is out of service first."""
        assert self._server is not None
        if how is signal.SIGTERM:
            await self._says(ready=False)
        self._server.process.send_signal(how)
        await asyncio.to_thread(self._server.process.wait)
        await self._says(ready=False)
        await self._stack.aclose()

    async def freezes(self, seconds: float) -> None:
        assert self._server is not None
        self._server.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self._server.process.send_signal(signal.SIGCONT)

    async def close(self) -> None:
        await self._stack.aclose()

    async def _says(self, *, ready: bool) -> None:
        assert self._server is not None
        port = int(self._server.url.rpartition(":")[2])
        await asyncio.to_thread(self._world.pod, self.name, port, ready=ready)


@dataclass
class Tally:
    """What became of the requests."""

    outcomes: Counter[str] = field(default_factory=Counter)
    #: What nothing explains: when and what.
    wrong: list[str] = field(default_factory=list)
    #: When streams broke off, and when replicas were killed: monotonic seconds.
    cut: list[float] = field(default_factory=list)
    kills: list[float] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    #: When the limited key was let in.
    admitted: list[float] = field(default_factory=list)

    def told(self) -> str:
        """In a few lines."""
        return (
            f"requests: {dict(self.outcomes)}\nfaults: {dict(self.faults)}\n"
            f"of the limited key in a minute: {self.most_in_a_minute()} of {LIMIT}"
        )

    def unexplained(self) -> list[str]:
        """Streams that broke off while no replica had been killed."""
        alone = [
            at for at in self.cut if not any(0 <= at - kill <= AFTER_A_KILL for kill in self.kills)
        ]
        return [f"a stream broke off at {at:.1f}" for at in alone] + self.wrong

    def most_in_a_minute(self) -> int:
        """Requests of the limited key let in within any 60 seconds."""
        return max(
            (sum(0 <= other - one < 60 for other in self.admitted) for one in self.admitted),
            default=0,
        )


class Traffic:
    """Clients of every kind, one request after the other in each lane."""

    def __init__(self, gateways: list[Process], key: MintedKey, limited: MintedKey) -> None:
        self.tally = Tally()
        self._gateways = gateways
        self._key = key
        self._limited = limited
        self._kinds: list[Callable[[httpx.AsyncClient, str], Awaitable[str]]] = [
            *[self._whole] * 5,
            *[self._stream] * 3,
            *[self._greedy_stream] * 3,
            self._leaves,
            self._is_wrong,
            self._has_no_key,
            self._is_limited,
        ]

    async def lane(self, number: int, over: asyncio.Event) -> None:
        chance = random.Random(number)
        async with httpx.AsyncClient(timeout=30) as http:
            count = 0
            while not over.is_set():
                count += 1
                http.base_url = httpx.URL(chance.choice(self._gateways).url)
                kind = chance.choice(self._kinds)
                words = " ".join(f"{number}-{count}-{n}" for n in range(chance.randint(1, 60)))
                outcome = await kind(http, words)
                self.tally.outcomes[outcome] += 1
                await asyncio.sleep(chance.uniform(0, 0.05))

    def _ask(self, words: str, **more: object) -> dict[str, object]:
        return {"model": "qwen", "messages": [{"role": "user", "content": words}], **more}

    def _headers(self, key: MintedKey) -> dict[str, str]:
        return {"authorization": f"Bearer {key.key}"}

    def _expect(self, what: str, got: httpx.Response, *statuses: int) -> None:
        if got.status_code not in statuses:
            at = time.strftime("%H:%M:%S")
            self.tally.wrong.append(f"{at} {what}: {got.status_code} {got.text[:300]}")

    async def _whole(self, http: httpx.AsyncClient, words: str) -> str:
        got = await http.post(CHAT, json=self._ask(words), headers=self._headers(self._key))
        self._expect("an answer", got, 200)
        if got.status_code == 200:
            said = got.json()["choices"][0]["message"]["content"]
            if said != words:
                self.tally.wrong.append(f"asked {words!r}, answered {said!r}")
        return "answers"

    async def _greedy_stream(self, http: httpx.AsyncClient, words: str) -> str:
        """Goes on at another replica, whatever happens to its own."""
        outcome = await self._stream(http, words, temperature=0)
        if outcome != "streams":
            self.tally.wrong.append("a stream with one answer was cut")
        return "greedy streams"

    async def _stream(self, http: httpx.AsyncClient, words: str, **more: object) -> str:
        asked = self._ask(words, stream=True, **more)
        got = await http.post(CHAT, json=asked, headers=self._headers(self._key))
        self._expect("a stream", got, 200)
        events = [line[6:] for line in got.text.splitlines() if line.startswith("data: ")]
        done, chunks = events[-1:] == ["[DONE]"], [json.loads(e) for e in events if e != "[DONE]"]
        if any("error" in chunk for chunk in chunks):
            self.tally.cut.append(time.monotonic())
            if done:
                self.tally.wrong.append("a stream that broke off said [DONE]")
            return "streams cut"
        said = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks)
        if said != words or not done:
            self.tally.wrong.append(f"asked {words!r}, streamed {said!r}, done: {done}")
        return "streams"

    async def _leaves(self, http: httpx.AsyncClient, words: str) -> str:
        asked = self._ask(words, stream=True)
        headers = self._headers(self._key)
        async with http.stream("POST", CHAT, json=asked, headers=headers) as got:
            self._expect("a stream that is left", got, 200)
            async for _ in got.aiter_bytes():
                break
        return "left"

    async def _is_wrong(self, http: httpx.AsyncClient, words: str) -> str:
        headers = self._headers(self._key)
        bad = {"model": "qwen", "messages": words}
        self._expect("bad messages", await http.post(CHAT, json=bad, headers=headers), 400)
        unknown = self._ask(words) | {"model": words}
        self._expect("no model", await http.post(CHAT, json=unknown, headers=headers), 404)
        return "refused"

    async def _has_no_key(self, http: httpx.AsyncClient, words: str) -> str:
        headers = {"authorization": f"Bearer {words}"}
        self._expect("no key", await http.post(CHAT, json=self._ask(words), headers=headers), 401)
        return "refused"

    async def _is_limited(self, http: httpx.AsyncClient, words: str) -> str:
        headers = self._headers(self._limited)
        got = await http.post(CHAT, json=self._ask(words), headers=headers)
        self._expect("a limited key", got, 200, 429)
        if got.status_code == 200:
            self.tally.admitted.append(time.monotonic())
        return "let in by a limit" if got.status_code == 200 else "refused by a limit"


class Faults:
    """One after the other, never two replicas at once."""

    def __init__(self, replicas: list[Replica], redis: Redis, tally: Tally) -> None:
        self._replicas = replicas
        self._redis = redis
        self._tally = tally

    async def run(self, every: float, seconds: float) -> None:
        """For so long, and until every kind was there once."""
        chance, until = random.Random(7), time.monotonic() + seconds
        kinds = [self._killed, self._ended, self._frozen, self._redis_bounced]
        turn = 0
        while time.monotonic() < until or turn < len(kinds):
            await asyncio.sleep(every)
            fault = kinds[turn % len(kinds)]
            turn += 1
            self._tally.faults[fault.__name__.strip("_")] += 1
            await fault(chance.choice(self._replicas))

    async def _killed(self, replica: Replica) -> None:
        self._tally.kills.append(time.monotonic())
        await replica.ends(signal.SIGKILL)
        await replica.start()

    async def _ended(self, replica: Replica) -> None:
        await replica.ends(signal.SIGTERM)
        await replica.start()

    async def _frozen(self, replica: Replica) -> None:
        await replica.freezes(0.7)

    async def _redis_bounced(self, replica: Replica) -> None:
        self._redis.kill()
        await asyncio.sleep(1.5)
        await self._redis.start()


@dataclass(frozen=True)
class Held:
    """What a process holds."""

    resident: int
    files: int


def held(process: Process) -> Held:
    """Bytes of memory, and open files and sockets."""
    proc = Path(f"/proc/{process.process.pid}")
    (line,) = [one for one in (proc / "status").read_text().splitlines() if one.startswith("VmRSS")]
    return Held(int(line.split()[1]) * 1024, len(list((proc / "fd").iterdir())))
