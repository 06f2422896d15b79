"""A model without a ready replica: who waits for one, how long, and what they hear meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from pippin_contract import usage
from pippin_contract.endpoint import Endpoint
from pippin_gateway.catalog.model import Catalog, ModelSpec, PodState, Replica, assemble
from pippin_gateway.waiting import Waiting
from support.eventually import eventually
from support.gateway import (
    ADMIN_TOKEN,
    Running,
    free_port,
    key_object,
    model_object,
    new_key,
    running_gateway,
)
from support.traffic import stream_once
from support.upstreams import Turn, answer, upstream

PATH = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "qwen", "messages": []}
REPLICA = Replica("uid/h:1", "m-0", Endpoint("h", 1))
STREAM = {**ASK, "stream": True}


@pytest.fixture
async def patient(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    """Waits long, and says so often."""
    monkeypatch.setattr("pippin_gateway.proxy.BEAT", 0.05)
    async with running_gateway(tmp_path, queue_timeout_seconds=20) as running:
        yield running


def waiting(gateway: Running) -> float:
    return gateway.metric("pippin_gateway_requests_waiting", model="team-a/qwen")


@contextlib.asynccontextmanager
async def asking(
    gateway: Running, body: dict[str, Any] = ASK, **headers: str
) -> AsyncIterator[asyncio.Task[httpx.Response]]:
    """A request that waits for a replica."""
    async with gateway.client() as http:
        request = asyncio.create_task(http.post(PATH, json=body, headers=headers))
        await eventually(lambda: waiting(gateway) == 1, within=5)
        yield request
        with contextlib.suppress(asyncio.CancelledError):
            await request
    await eventually(lambda: waiting(gateway) == 0, within=5)


def comments(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(":")]


def events(text: str) -> list[str]:
    return [line[len("data: ") :] for line in text.splitlines() if line.startswith("data: ")]


@pytest.mark.parametrize("reason", ["", "Loading", "RollingOut", "ScaledToZero"])
async def test_a_request_that_comes_before_the_first_replica_is_answered_by_it(
    patient: Running, reason: str
) -> None:
    model = model_object()
    model["status"] = {"conditions": [{"type": "Ready", "status": "False", "reason": reason}]}
    patient.store.put("modeldeployments", model)
    patient.store.refresh()
    async with upstream() as replica, asking(patient, **{"x-request-id": "early"}) as request:
        patient.route(replica.port)
        got = await request
        assert got.status_code == 200
    async with patient.client(ADMIN_TOKEN) as http:
        told = (await http.get("/admin/requests/early")).json()
    assert 0 < told["waited_ms"] <= told["duration_ms"]


async def test_whoever_waits_too_long_is_told_why_and_when_to_come_back(gateway: Running) -> None:
    async with asking(gateway) as request:
        got = await request
    assert got.status_code == 503
    assert got.json()["error"]["code"] == "no_ready_replicas"
    assert int(got.headers["retry-after"]) >= 1


async def test_the_time_to_wait_is_the_models(patient: Running) -> None:
    patient.store.put("modeldeployments", model_object(timeouts={"queue": "100ms"}))
    patient.store.refresh()
    async with asking(patient) as request:
        assert (await request).status_code == 503


@pytest.mark.parametrize(
    "state",
    [
        {"suspend": True},
        {"replicas": 0},
        {"reason": "CrashLooping"},
        {"reason": "InsufficientGPU"},
    ],
)
async def test_nobody_waits_for_what_will_not_come(patient: Running, state: dict[str, Any]) -> None:
    reason = state.pop("reason", "")
    hopeless = model_object(**state)
    hopeless["status"] = {"conditions": [{"type": "Ready", "status": "False", "reason": reason}]}
    async with asking(patient) as request:
        patient.store.put("modeldeployments", hopeless)
        assert (await request).status_code == 503
    async with patient.client() as http:
        got = await http.post(PATH, json=ASK)
    assert got.json()["error"]["code"] == "no_ready_replicas"


async def test_a_model_that_is_deleted_meanwhile_is_not_found(patient: Running) -> None:
    async with asking(patient) as request:
        patient.store.remove("modeldeployments", model_object())
        assert (await request).status_code == 404


async def test_a_stream_hears_that_it_waits_and_then_its_answer(patient: Running) -> None:
    async with upstream() as replica, asking(patient, STREAM) as request:
        await asyncio.wait({request}, timeout=0.3)
        patient.route(replica.port)
        got = await request
        assert got.status_code == 200
        assert got.headers["content-type"].startswith("text/event-stream")
        assert comments(got.text)[0] == ": waiting for a replica: none has become ready yet"
        assert events(got.text)[-1] == "[DONE]"


async def test_the_official_client_reads_a_stream_that_waited(patient: Running) -> None:
    client = openai.AsyncOpenAI(api_key=patient.key.key, base_url=f"{patient.url}/v1")
    async with client, upstream() as replica:
        answered = asyncio.create_task(stream_once(client, "qwen", "hello"))
        await asyncio.wait({answered}, timeout=0.3)
        patient.route(replica.port)
        assert await answered == "one two three"


async def test_a_stream_that_waited_in_vain_ends_in_an_error_event(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pippin_gateway.proxy.BEAT", 0.05)
    times = {"first_token_timeout_seconds": 0.5, "total_timeout_seconds": 1.0}
    async with (
        running_gateway(tmp_path, queue_timeout_seconds=0.1, **times) as gateway,
        asking(gateway, STREAM) as request,
    ):
        got = await request
    assert got.status_code == 200 and len(comments(got.text)) > 2
    (last,) = events(got.text)
    assert json.loads(last)["error"]["code"] == "no_ready_replicas"
    assert json.loads(gateway.log[-1])["error"] == "no_ready_replicas"


async def test_a_refusal_of_the_replica_is_an_event_to_a_stream_that_waited(
    patient: Running,
) -> None:
    async def refuses(turn: Turn) -> None:
        body = b'{"error": {\n"code": "context_length_exceeded"}}'
        await turn.send(answer(body, "400 Bad Request"))

    async with upstream(refuses) as replica, asking(patient, STREAM) as request:
        await asyncio.wait({request}, timeout=0.3)
        patient.route(replica.port)
        (last,) = events((await request).text)
        assert json.loads(last)["error"]["code"] == "context_length_exceeded"


async def test_who_leaves_while_waiting_used_nothing(patient: Running) -> None:
    async with asking(patient) as request:
        request.cancel()
    async with patient.client(ADMIN_TOKEN) as http:
        report = usage.load((await http.get("/admin/usage")).content)
    ((used,),) = [key.models for key in report.keys]
    assert (used.prompt_tokens, used.completion_tokens) == (0, 0)


async def test_one_more_than_may_wait_is_sent_away_at_once(
    patient: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Waiting, "full", property(lambda self: len(self._lines) > 0))
    async with upstream() as replica, asking(patient) as first:
        async with patient.client() as http:
            assert (await http.post(PATH, json=ASK)).status_code == 503
        patient.route(replica.port)
        assert (await first).status_code == 200


class Busy:
    """A replica that answers when the test says so; what each asked for, in the order it came."""

    def __init__(self) -> None:
        self.came: list[str] = []
        self._release: dict[str, asyncio.Event] = {}

    async def __call__(self, turn: Turn) -> None:
        name = json.loads(turn.request.body)["user"]
        self.came.append(name)
        await self._release.setdefault(name, asyncio.Event()).wait()
        await turn.send(answer())

    def finish(self, name: str) -> None:
        self._release[name].set()


@contextlib.asynccontextmanager
async def crowd(
    gateway: Running, *names: str, key: str | None = None
) -> AsyncIterator[list[asyncio.Task[httpx.Response]]]:
    """Requests that come one after the other; those that are left are cut off in the end."""
    async with gateway.client(key) as http:
        asked = []
        for name in names:
            before = waiting(gateway)
            asked.append(asyncio.create_task(http.post(PATH, json={**ASK, "user": name})))
            await eventually(lambda: waiting(gateway) == before + 1, within=5)  # noqa: B023
        try:
            yield asked
        finally:
            for one in asked:
                one.cancel()
            await asyncio.gather(*asked, return_exceptions=True)


def two_at_once(gateway: Running, **spec: Any) -> None:
    gateway.store.put("modeldeployments", model_object(limits={"concurrency": 2}, **spec))
    gateway.store.refresh()


async def test_only_so_many_go_to_a_new_replica_as_it_works_on_at_once(patient: Running) -> None:
    two_at_once(patient)
    busy, more = Busy(), Busy()
    async with upstream(busy) as replica, crowd(patient, *"abcdef") as asked:
        patient.route(replica.port)
        await eventually(lambda: set(busy.came) == {*"ab"}, within=5)
        assert waiting(patient) == 4
        busy.finish("b")
        assert (await asked[1]).status_code == 200
        await eventually(lambda: busy.came[2:] == ["c"], within=5)
        asked[0].cancel()
        await eventually(lambda: busy.came[2:] == ["c", "d"], within=5)
        async with upstream(more) as another:
            patient.route(replica.port, another.port)
            await eventually(lambda: set(more.came) == {*"ef"}, within=5)
            assert waiting(patient) == 0


async def test_keys_take_turns_and_who_comes_later_stands_behind_its_own_only(
    patient: Running,
) -> None:
    two_at_once(patient)
    busy, other = Busy(), new_key()
    patient.store.put("apikeys", key_object(other, "other"))
    patient.store.refresh()
    async with (
        upstream(busy) as replica,
        crowd(patient, *"abc"),
        crowd(patient, *"xy", key=other.key),
    ):
        patient.route(replica.port)
        await eventually(lambda: set(busy.came) == {*"ax"}, within=5)
        async with crowd(patient, "d"):
            for done, follows in (("a", "b"), ("b", "y"), ("x", "c")):
                busy.finish(done)
                await eventually(lambda: busy.came[-1] == follows, within=5)  # noqa: B023
            async with patient.client(other.key) as http:
                late = asyncio.create_task(http.post(PATH, json={**ASK, "user": "z"}))
                await eventually(lambda: busy.came[-1] == "z", within=5)
                busy.finish("z")
                await late
            busy.finish("c")
            await eventually(lambda: busy.came[-1] == "d", within=5)


async def test_who_has_waited_long_enough_goes_whether_there_is_room_or_not(
    patient: Running,
) -> None:
    two_at_once(patient, timeouts={"queue": "1s"})
    busy = Busy()
    async with upstream(busy) as replica, crowd(patient, *"abcd"):
        patient.route(replica.port)
        await eventually(lambda: sorted(busy.came) == [*"abcd"], within=5)


async def test_only_those_for_whom_there_is_room_are_called() -> None:
    spec, line = ModelSpec("n", "m", "m", at_once=1), Waiting(lambda replica: 0)
    line.look(assemble((), [spec], ()))
    with line.place("n/m", "key") as first, contextlib.ExitStack() as stack:
        other = stack.enter_context(line.place("n/m", "other"))
        with line.place("n/m", "key") as last:
            line.look(assemble((), [spec], [PodState("n", "m", REPLICA)]))
            assert [one.done() for one in (first, other, last)] == [True, False, False]
            assert line.of("n/m") == 3 and line.holds("n/m", "key")
        line.ended("n/m")
        assert not other.done(), "there is room for one, who has not gone yet"
        line.look(Catalog())
        assert other.done(), "there is nothing to wait for"
    assert line.of("n/m") == 0
    line.look(assemble((), [spec], [PodState("n", "m", REPLICA)]))
    leaving = contextlib.ExitStack()
    assert leaving.enter_context(line.place("n/m", "key")).done()
    with line.place("n/m", "key") as after:
        assert not after.done()
        leaving.close()
        line.ended("n/m")
        assert after.done(), "who was called left without having gone"


async def test_an_only_replica_that_does_not_listen_yet_is_asked_once_more(
    patient: Running,
) -> None:
    again = {"attempts": 2, "backoff": "1s"}
    patient.store.put("modeldeployments", model_object(retries=again))
    port = free_port()
    patient.route(port)
    async with patient.client() as http:
        request = asyncio.create_task(http.post(PATH, json=ASK))
        errors = {"model": "team-a/qwen", "kind": "connect"}
        await eventually(
            lambda: patient.metric("pippin_gateway_upstream_errors_total", **errors) == 1, within=5
        )
        async with upstream(port=port):
            assert (await request).status_code == 200


async def test_the_end_of_an_only_replica_is_the_beginning_of_the_wait(patient: Running) -> None:
    again = {"attempts": 2, "backoff": "1s"}
    patient.store.put("modeldeployments", model_object(retries=again))
    patient.route(free_port())
    async with patient.client() as http:
        request = asyncio.create_task(http.post(PATH, json=ASK))
        errors = {"model": "team-a/qwen", "kind": "connect"}
        await eventually(
            lambda: patient.metric("pippin_gateway_upstream_errors_total", **errors) == 1, within=5
        )
        patient.route()
        await eventually(lambda: waiting(patient) == 1, within=5)
        async with upstream() as replica:
            patient.route(replica.port)
            assert (await request).status_code == 200
