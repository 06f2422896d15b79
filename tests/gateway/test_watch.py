"""The watch against an API server that misbehaves in ways that a real one does rarely."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from lightkube.config.kubeconfig import KubeConfig

from pippin_gateway.catalog import watch
from pippin_gateway.catalog.store import CatalogStore
from pippin_gateway.catalog.watch import Cluster, of_kind
from support.eventually import eventually
from support.gateway import key_object, new_key
from support.upstreams import STREAM_HEAD, Turn, answer, chunk, upstream

Say = Callable[[Turn, dict[str, str]], Awaitable[None]]


class Server:
    """Answers lists from `objects`, and watches by the next of `plays`; then hangs."""

    def __init__(self, *plays: Say) -> None:
        self.objects: list[dict[str, Any]] = []
        self.version = 10
        self.plays = list(plays)
        self.lists: list[dict[str, str]] = []
        self.watches: list[dict[str, str]] = []

    async def __call__(self, turn: Turn) -> None:
        url = urlsplit(turn.request.line.split()[1])
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if "watch" in query:
            self.watches.append(query)
            if self.plays:
                return await self.plays.pop(0)(turn, query)
            await turn.send(STREAM_HEAD)
            return await turn.hang()
        self.lists.append(query)
        start = int(query.get("continue", "0"))
        page = self.objects[start : start + 2]
        more = str(start + 2) if start + 2 < len(self.objects) else ""
        metadata = {"resourceVersion": str(self.version), "continue": more}
        await turn.send(answer(json.dumps({"metadata": metadata, "items": page}).encode()))


def told(what: str, raw: dict[str, Any]) -> bytes:
    return chunk(json.dumps({"type": what, "object": raw}).encode() + b"\n")


def numbered(version: int, name: str = "app", **spec: Any) -> dict[str, Any]:
    raw = key_object(new_key(), name, **spec)
    raw["metadata"]["resourceVersion"] = str(version)
    return raw


@contextlib.asynccontextmanager
async def watching(server: Server) -> AsyncIterator[CatalogStore]:
    """A watch of APIKeys at this server."""
    store = CatalogStore()
    async with upstream(server) as replica:
        config = KubeConfig.from_server(f"http://127.0.0.1:{replica.port}").get()
        assert config is not None
        async with Cluster(config).client() as client:
            task = asyncio.create_task(of_kind(client, store, "apikeys").run())
            try:
                yield store
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


def known(store: CatalogStore) -> set[str]:
    return {name for _, name in store._objects["apikeys"]}


async def test_a_list_comes_in_pages_and_the_watch_goes_on_from_it() -> None:
    server = Server()
    server.objects = [numbered(n, f"k{n}") for n in range(5)]
    async with watching(server) as store:
        await eventually(lambda: server.watches, within=5)
        assert known(store) == {"k0", "k1", "k2", "k3", "k4"}
    assert len(server.lists) == 3
    assert server.watches[0]["resourceVersion"] == "10"
    assert server.watches[0]["allowWatchBookmarks"] == "true"
    assert int(server.watches[0]["timeoutSeconds"]) <= 300


async def test_a_watch_that_ends_goes_on_where_it_was_bookmarks_included() -> None:
    async def some(turn: Turn, query: dict[str, str]) -> None:
        bookmark = {"metadata": {"resourceVersion": "25"}}
        await turn.send(STREAM_HEAD, told("ADDED", numbered(20)))
        await turn.send(told("BOOKMARK", bookmark), b"0\r\n\r\n")

    server = Server(some)
    async with watching(server) as store:
        await eventually(lambda: len(server.watches) == 2, within=5)
        assert known(store) == {"app"}
    assert server.watches[1]["resourceVersion"] == "25"
    assert len(server.lists) == 1


async def gone_status(turn: Turn, query: dict[str, str]) -> None:
    await turn.send(answer(b'{"kind":"Status","code":410}', "410 Gone"))


async def gone_event(turn: Turn, query: dict[str, str]) -> None:
    await turn.send(STREAM_HEAD, told("ERROR", {"kind": "Status", "code": 410}))
    await turn.hang()


@pytest.mark.parametrize("play", [gone_status, gone_event])
async def test_a_version_that_is_gone_leads_to_a_new_list(play: Say) -> None:
    async def forget(turn: Turn, query: dict[str, str]) -> None:
        server.objects = [numbered(2, "new")]
        await play(turn, query)

    server = Server(forget)
    server.objects = [numbered(1, "old")]
    async with watching(server) as store:
        await eventually(lambda: known(store) == {"new"}, within=5)
    assert len(server.lists) == 2


async def test_silence_ends_a_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that was cut silently says nothing for ever: bookmarks would have come."""
    monkeypatch.setattr(watch, "SILENCE_SECONDS", 0.2)
    server = Server()
    async with watching(server) as store:
        await eventually(lambda: len(server.watches) >= 2, within=5)
        await eventually(lambda: "apikeys" in store.stale_since, within=5)


async def test_events_torn_anywhere_are_put_together() -> None:
    async def torn(turn: Turn, query: dict[str, str]) -> None:
        await turn.send(STREAM_HEAD)
        whole = json.dumps({"type": "ADDED", "object": numbered(20, "x", owner="ü€")}).encode()
        whole += b"\n" + json.dumps({"type": "DELETED", "object": numbered(21, "k0")}).encode()
        for at in range(0, len(whole), 7):
            await turn.send(chunk(whole[at : at + 7]))
        await turn.send(chunk(b"\n"))
        await turn.hang()

    server = Server(torn)
    server.objects = [numbered(1, "k0")]
    async with watching(server) as store:
        await eventually(lambda: known(store) == {"x"}, within=5)


async def forbidden(turn: Turn, query: dict[str, str]) -> None:
    await turn.send(answer(b'{"message":"apikeys is forbidden"}', "403 Forbidden"))


async def broken(turn: Turn, query: dict[str, str]) -> None:
    await turn.send(answer(b"<html>", "500 Internal Server Error", "text/html"))


async def garbage(turn: Turn, query: dict[str, str]) -> None:
    await turn.send(STREAM_HEAD, chunk(b"{]\n"))
    await turn.hang()


async def cut(turn: Turn, query: dict[str, str]) -> None:
    await turn.send(STREAM_HEAD)
    turn.reset()


@pytest.mark.parametrize("play", [forbidden, broken, garbage, cut])
async def test_trouble_is_shown_and_tried_again_until_it_is_over(play: Say) -> None:
    server = Server(play, play)
    server.objects = [numbered(1, "kept")]
    async with watching(server) as store:
        await eventually(lambda: "apikeys" in store.stale_since, within=5)
        assert known(store) == {"kept"}, "what is known stays in use"
        await eventually(lambda: "apikeys" not in store.stale_since, within=10)
    assert len(server.lists) == 1, "a broken watch is no reason to list everything again"
