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
from pippin_gateway.waiting import Waiting
from support.eventually import eventually
from support.gateway import ADMIN_TOKEN, Running, free_port, model_object, running_gateway
from support.traffic import stream_once
from support.upstreams import Turn, answer, upstream

PATH = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "qwen", "messages": []}
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
    monkeypatch.setattr(Waiting, "full", property(lambda self: len(self._rooms) > 0))
    async with upstream() as replica, asking(patient) as first:
        async with patient.client() as http:
            assert (await http.post(PATH, json=ASK)).status_code == 503
        patient.route(replica.port)
        assert (await first).status_code == 200


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
