"""What providers outside answer, told apart from what is the client's own doing, and whose requests
stay in the cluster."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.certificates import Authority
from support.gateway import (
    Running,
    free_port,
    key_object,
    model_object,
    pod_object,
)
from support.providers import (
    KEY,
    ask,
    cloud,
    code,
    failures,
    gateway_of_providers,
    names_itself,
    plain,
    serve,
)
from support.upstreams import Script, Turn, answer, good, upstream


@pytest.fixture
async def gateway(tmp_path: Path, authority: Authority) -> AsyncIterator[Running]:
    async with gateway_of_providers(tmp_path, authority) as running:
        yield running


def says(status: str, body: bytes = b'{"error":{"message":"no"}}', headers: str = "") -> Script:
    whole = answer(body, status)
    line, _, rest = whole.partition(b"\r\n")

    async def script(turn: Turn) -> None:
        await turn.send(line + b"\r\n" + headers.encode() + rest)

    return script


NOT_THE_CLIENTS = {
    "401 Unauthorized": ("provider_refused_key", "refused_key"),
    "402 Payment Required": ("provider_refused_key", "refused_key"),
    "403 Forbidden": ("provider_refused_key", "refused_key"),
    "404 Not Found": ("provider_unknown_model", "unknown_model"),
    "301 Moved": ("upstream_error", "bad_answer"),
    "307 Temporary Redirect": ("upstream_error", "bad_answer"),
    "500 Oops": ("upstream_error", "server_error"),
    "529 Overloaded": ("overloaded", "unavailable"),
}


async def test_what_is_not_the_clients_doing_is_not_told_as_such(gateway: Running) -> None:
    body = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}).encode()
    async with upstream() as elsewhere:
        moved = f"Location: {plain(elsewhere)}/v1/chat/completions\r\n"
        for status, (told, kind) in NOT_THE_CLIENTS.items():
            before = failures(gateway, kind)
            async with upstream(says(status, body, moved)) as provider:
                serve(gateway, cloud(plain(provider)))
                got = await ask(gateway)
            assert code(got) == (503 if kind == "unavailable" else 502, told), status
            assert "Incorrect" not in got.text and KEY not in got.text
            assert failures(gateway, kind) == before + 1
            assert len(provider.requests) == 1
    assert elsewhere.requests == []


async def test_a_refused_key_opens_the_breaker(gateway: Running) -> None:
    async with upstream(says("401 Unauthorized")) as provider:
        serve(gateway, cloud(plain(provider), circuitBreaker={"failures": 2, "cooldown": "60s"}))
        codes = [code(await ask(gateway))[1] for _ in range(3)]
    assert codes == ["provider_refused_key", "provider_refused_key", "circuit_open"]
    assert len(provider.requests) == 2


async def test_a_providers_limit_is_told_with_its_time(gateway: Running) -> None:
    waits = {"Retry-After: 7\r\n": "7", "Retry-After: soon\r\n": "10", "": "10"}
    for header, wait in waits.items():
        async with upstream(says("429 Too Many Requests", headers=header)) as provider:
            serve(
                gateway, cloud(plain(provider), circuitBreaker={"failures": 1, "cooldown": "60s"})
            )
            for _ in range(2):  # the breaker has nothing against it
                got = await ask(gateway)
                assert code(got) == (429, "provider_rate_limited")
                assert got.headers["retry-after"] == wait
        assert len(provider.requests) == 2


async def test_a_providers_limit_is_a_reason_to_ask_another(gateway: Running) -> None:
    async with upstream(says("429 Too Many Requests")) as provider, upstream() as local:
        serve(gateway, cloud(plain(provider), fallbacks=["qwen"]), model_object())
        gateway.route(local.port)
        got = await ask(gateway)
    assert got.status_code == 200
    assert got.headers["x-pippin-fallback"] == "cloud=provider_limit"
    assert json.loads(local.requests[0].body)["model"] == "qwen"


async def test_what_the_client_asked_wrongly_is_told_in_our_envelope(gateway: Running) -> None:
    async with upstream(says("400 Bad Request", b'{"error":"no tools here"}')) as provider:
        serve(gateway, cloud(plain(provider)))
        got = await ask(gateway)
        again = await ask(gateway)
    assert code(got) == code(again) == (400, "invalid_request")
    assert got.json()["error"]["message"] == "no tools here"
    assert provider.connections == 1


async def test_a_page_that_is_no_answer_is_none(gateway: Running) -> None:
    async def portal(turn: Turn) -> None:
        await turn.send(answer(b"<h1>Log in</h1>", kind="text/html"))

    async with upstream(portal) as provider:
        serve(gateway, cloud(plain(provider)))
        assert code(await ask(gateway)) == (502, "upstream_error")


# Like any other model


async def test_another_try_goes_to_the_same_provider(gateway: Running) -> None:
    async def at_second_sight(turn: Turn) -> None:
        if len(provider.requests) == 1:
            return turn.reset()
        await good(turn)

    async with upstream(at_second_sight) as provider:
        serve(gateway, cloud(plain(provider), retries={"attempts": 2, "backoff": "10ms"}))
        assert (await ask(gateway)).status_code == 200
    assert len(provider.requests) == 2


async def test_a_late_provider_is_given_up_in_time(gateway: Running) -> None:
    async def hangs(turn: Turn) -> None:
        await turn.hang()

    async with upstream(hangs) as provider:
        serve(gateway, cloud(plain(provider), timeouts={"firstToken": "200ms"}))
        assert code(await ask(gateway, stream=True)) == (504, "upstream_timeout")


async def test_a_provider_answers_for_a_local_model_that_is_down(gateway: Running) -> None:
    async with upstream(names_itself) as provider:
        serve(gateway, cloud(plain(provider)), model_object(fallbacks=["cloud"]))
        gateway.store.replace("pods", [pod_object("qwen-0", free_port())])
        gateway.store.refresh()
        got = await ask(gateway, model="qwen")
        told = await explained(gateway, got)
    assert (got.status_code, got.json()["model"]) == (200, "cloud")
    assert got.headers["x-pippin-fallback"] == "qwen=connect"
    assert json.loads(provider.requests[0].body)["model"] == "big-1"
    assert told["served_by"] == "external/cloud"
    assert [hop["replica"] for hop in told["hops"]] == ["qwen-0", "external/cloud"]


async def explained(gateway: Running, got: httpx.Response) -> dict[str, Any]:
    async with gateway.client("the token of the tests' administrators") as http:
        told = await http.get(f"/admin/requests/{got.headers['x-request-id']}")
    found: dict[str, Any] = told.json()
    return found


async def test_a_suspended_one_is_not_asked(gateway: Running) -> None:
    async with upstream() as provider:
        serve(gateway, cloud(plain(provider), suspend=True))
        got = await ask(gateway)
    assert code(got) == (503, "no_ready_replicas") and "suspended" in got.text
    assert provider.requests == []


async def test_what_is_not_limited_is_limited_as_usual(gateway: Running) -> None:
    async with upstream() as outside:
        serve(gateway, cloud(plain(outside), external={"provider": "llamacpp"}))
        told = await explained(gateway, await ask(gateway))
    assert {one["kind"]: one["limit"] for one in told["limits"]} == {"rpm": 120, "tpm": 60_000}


async def test_limits_that_were_set_hold_alone(gateway: Running) -> None:
    async with upstream() as provider:
        serve(gateway, cloud(plain(provider), limits={"rpm": 1, "concurrency": 1}))
        first, second = await ask(gateway), await ask(gateway)
        told = await explained(gateway, first)
    assert first.status_code == 200
    assert code(second) == (429, "rate_limited") and "retry-after" in second.headers
    assert {one["kind"] for one in told["limits"]} == {"rpm", "concurrency"}


# Keys whose requests stay in the cluster


def stays(gateway: Running) -> None:
    gateway.store.replace("apikeys", [key_object(gateway.key, egress="Deny")])
    gateway.store.refresh()


async def test_for_a_key_that_stays_there_are_no_providers(gateway: Running) -> None:
    async with upstream() as provider:
        serve(gateway, cloud(plain(provider)), model_object())
        stays(gateway)
        got, absent = await ask(gateway), await ask(gateway, model="absent")
        async with gateway.client() as http:
            listed = (await http.get("/v1/models")).json()["data"]
            one = await http.get("/v1/models/cloud")
    assert code(got) == code(absent) == code(one) == (404, "model_not_found")
    assert got.text.replace("cloud", "absent")[:80] == absent.text[:80]
    assert [model["id"] for model in listed] == ["qwen"]
    assert provider.requests == []


async def test_it_does_not_leave_by_fallback_either(gateway: Running) -> None:
    async with upstream() as provider, upstream() as llama:
        models = [cloud(plain(provider)), model_object("llama")]
        serve(gateway, *models, model_object(fallbacks=["cloud", "llama"], suspend=True))
        gateway.store.replace("pods", [pod_object("llama-0", llama.port, "llama")])
        stays(gateway)
        got = await ask(gateway, model="qwen")
        serve(gateway, *models, model_object(fallbacks=["cloud"], suspend=True))
        none = await ask(gateway, model="qwen")
    assert got.headers["x-pippin-served-by"] == "llama-0"
    assert code(none) == (503, "no_ready_replicas")
    assert provider.requests == []
