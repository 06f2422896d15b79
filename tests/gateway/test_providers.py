"""Models of providers outside: reached with their own key over TLS that is verified, and told apart
from what is the client's own doing."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from pippin_contract import providers
from support.certificates import HOUR, Authority
from support.eventually import eventually
from support.gateway import (
    NAMESPACE,
    Running,
    free_port,
    key_object,
    model_object,
    pod_object,
    running_gateway,
)
from support.upstreams import ANSWER, Script, Turn, Upstream, answer, good, upstream

PATH = "/v1/chat/completions"
ASK: dict[str, object] = {"model": "cloud", "messages": [], "temperature": 0.5}
SECRET = {"name": "provider", "key": "api-key"}
KEY = "sk-of-the-provider-0123456789"
OF_CLOUD = {"model": "team-a/cloud", "key": "team-a/app"}
#: No test waits for another try.
ONCE = {"attempts": 1, "backoff": "0s"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def gateway(tmp_path: Path, authority: Authority) -> AsyncIterator[Running]:
    """It trusts that authority, and lets providers lie on this machine."""
    async with running_gateway(
        tmp_path,
        provider_networks=("127.0.0.0/8", "::1/128"),
        provider_ca_dir=str(authority.public.parent),
        first_token_timeout_seconds=0.5,
        total_timeout_seconds=3,
    ) as running:
        yield running


def cloud(url: str, name: str = "cloud", **spec: Any) -> dict[str, Any]:
    external = {"url": url, "model": "big-1", "apiKeySecretRef": SECRET}
    external |= spec.pop("external", {})
    engine = {"type": "external", "external": {k: v for k, v in external.items() if v}}
    return model_object(name, engine=engine, **{"retries": ONCE, **spec})


def serve(gateway: Running, *models: dict[str, Any], key: str = KEY) -> None:
    """These are the models, and the operator has handed their keys over."""
    gateway.store.replace("modeldeployments", models)
    gateway.store.refresh()
    rows = {}
    for model in models:
        external = model["spec"].get("engine", {}).get("external")
        if external and "apiKeySecretRef" in external:
            made = handed(external["url"], key)
            rows[providers.row(NAMESPACE, model["metadata"]["name"])] = made
    gateway.provider_keys.put({"data": rows})


def handed(url: str, key: str = KEY) -> str:
    made = providers.Handed(url=url, secret="provider", entry="api-key", key=key)
    return base64.b64encode(made.model_dump_json().encode()).decode()


async def ask(gateway: Running, **body: object) -> httpx.Response:
    async with gateway.client() as http:
        return await http.post(PATH, json={**ASK, **body})


def plain(replica: Upstream) -> str:
    return f"http://127.0.0.1:{replica.port}"


async def names_itself(turn: Turn) -> None:
    """As OpenAI does: under the name of a snapshot."""
    await turn.send(answer(ANSWER.replace(b'"qwen"', b'"big-1-2026-01-01"')))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_provider_is_asked_over_tls_by_its_own_name_of_the_model(
    gateway: Running, authority: Authority, host: str
) -> None:
    async with upstream(names_itself, tls=authority.server(host)) as provider:
        serve(gateway, cloud(f"https://{host}:{provider.port}/v1"))
        got = await ask(gateway)
        again = await ask(gateway)
    assert got.status_code == again.status_code == 200
    assert got.json() == {**json.loads(ANSWER), "model": "cloud"}
    assert got.headers["x-pippin-served-by"] == "external/cloud"
    request = provider.requests[0]
    assert json.loads(request.body) == {**ASK, "model": "big-1"}
    assert request.line == "POST /v1/chat/completions HTTP/1.1"
    assert request.headers["host"] == f"{host}:{provider.port}"
    assert provider.connections == 1, "the connection is kept"
    tokens = {**OF_CLOUD, "kind": "prompt"}
    assert gateway.metric("pippin_gateway_tokens_total", **tokens) == 14


async def test_it_learns_its_own_key_and_nothing_else_of_the_client_or_of_us(
    gateway: Running,
) -> None:
    mine = {
        "x-api-key": gateway.key.key,
        "cookie": "a=b",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "openai-organization": "org-1",
        "proxy-authorization": "Basic eA==",
        "te": "trailers",
    }
    async with upstream() as provider:
        serve(gateway, cloud(plain(provider)))
        async with gateway.client() as http:
            got = await http.post(PATH, json=ASK, headers=mine)
    assert got.status_code == 200
    (request,) = provider.requests
    assert request.headers.pop("authorization") == f"Bearer {KEY}"
    assert request.headers.pop("user-agent").startswith("pippin/")
    assert request.headers.pop("x-request-id") == got.headers["x-request-id"]
    assert set(request.headers) == {
        *("host", "content-type", "content-length", "accept", "accept-encoding"),
        "x-pippin-hops",
    }
    seen = got.text + str(got.headers) + b"".join(gateway.log).decode()
    assert KEY not in seen


async def test_without_a_secret_there_is_no_authorization(gateway: Running) -> None:
    async with upstream() as ollama:
        serve(gateway, cloud(plain(ollama), external={"apiKeySecretRef": None}))
        assert (await ask(gateway)).status_code == 200
    assert "authorization" not in ollama.requests[0].headers


async def test_the_urls_path_comes_first(gateway: Running) -> None:
    async with upstream() as provider:
        for path in ("", "/v1/", "/v1beta/openai"):
            serve(gateway, cloud(plain(provider) + path))
            assert (await ask(gateway)).status_code == 200
    assert [request.line.split()[1] for request in provider.requests] == [
        "/v1/chat/completions",
        "/v1/chat/completions",
        "/v1beta/openai/chat/completions",
    ]


async def test_a_stream_comes_through_under_the_name_that_was_asked_for(
    gateway: Running, authority: Authority
) -> None:
    async with upstream(good, tls=authority.server("127.0.0.1")) as provider:
        serve(gateway, cloud(f"https://127.0.0.1:{provider.port}"))
        async with openai.AsyncOpenAI(
            base_url=f"{gateway.url}/v1", api_key=gateway.key.key, max_retries=0
        ) as client:
            stream = await client.chat.completions.create(model="cloud", messages=[], stream=True)
            chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "one two three"
    assert {c.model for c in chunks} == {"cloud"}
    assert json.loads(provider.requests[0].body)["stream_options"] == {"include_usage": True}
    tokens = {**OF_CLOUD, "kind": "completion"}
    assert gateway.metric("pippin_gateway_tokens_total", **tokens) == 3


async def test_models_of_providers_are_listed_like_any_other(gateway: Running) -> None:
    serve(gateway, cloud("https://api.example.com"), model_object())
    async with gateway.client() as http:
        listed = (await http.get("/v1/models")).json()["data"]
    assert {one["id"]: one["ready"] for one in listed} == {"cloud": True, "qwen": False}


# Who is at the other end


def stranger(directory: Path) -> Authority:
    directory.mkdir()
    return Authority(directory)


@pytest.mark.parametrize("wrong", ["authority", "name", "time"])
async def test_nothing_is_said_to_who_cannot_prove_to_be_the_provider(
    gateway: Running, authority: Authority, tmp_path: Path, wrong: str
) -> None:
    contexts = {
        "authority": stranger(tmp_path / "other").server("127.0.0.1"),
        "name": authority.server("other.example"),
        "time": authority.server("127.0.0.1", lasts=-HOUR),
        "plain": None,
    }
    async with upstream(good, tls=contexts[wrong]) as provider:
        serve(gateway, cloud(f"https://127.0.0.1:{provider.port}"))
        got = await ask(gateway)
    assert provider.requests == []
    assert code(got) == (502, "provider_tls")
    assert failures(gateway, "tls") == 1


async def test_a_new_authority_is_believed_without_a_restart(
    gateway: Running, authority: Authority, tmp_path: Path
) -> None:
    old, new = authority.public.read_bytes(), stranger(tmp_path / "new")
    async with upstream(good, tls=new.server("127.0.0.1")) as provider:
        serve(gateway, cloud(f"https://127.0.0.1:{provider.port}"))
        assert (await ask(gateway)).status_code == 502
        fresh = authority.public.with_suffix(".new")
        fresh.write_bytes(old + new.public.read_bytes())
        fresh.rename(authority.public)
        assert (await ask(gateway)).status_code == 200


async def test_this_machine_is_no_provider_unless_allowed(tmp_path: Path) -> None:
    async with running_gateway(tmp_path) as gateway, upstream() as provider:
        for host in ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"):
            serve(gateway, cloud(f"http://{host}:{provider.port}"))
            got = await ask(gateway)
            assert code(got) == (502, "provider_forbidden_address")
            assert "127.0.0.1" not in got.text
        # What would be read by everybody on the way is not sent either.
        serve(gateway, cloud("http://1.1.1.1"))
        assert code(await ask(gateway)) == (502, "provider_forbidden_address")
    assert provider.connections == 0


async def test_the_api_server_is_no_provider_wherever_it_is(tmp_path: Path) -> None:
    async with upstream() as server:
        spot = ("localhost", server.port)
        networks = ("127.0.0.0/8", "::1/128")
        async with running_gateway(
            tmp_path, api_server=spot, provider_networks=networks
        ) as gateway:
            serve(gateway, cloud(plain(server)))
            assert code(await ask(gateway)) == (502, "provider_forbidden_address")
    assert server.connections == 0


async def test_a_key_is_for_the_place_that_it_was_meant_for(gateway: Running) -> None:
    """A ModelDeployment that points elsewhere before the operator has seen it."""
    async with upstream() as old, upstream() as new:
        serve(gateway, cloud(plain(old)))
        assert (await ask(gateway)).status_code == 200
        gateway.store.replace("modeldeployments", [cloud(plain(new))])
        gateway.store.refresh()
        assert code(await ask(gateway)) == (503, "provider_key_missing")
        gateway.provider_keys.put({"data": {f"{NAMESPACE}.cloud": handed(plain(new), "sk-new")}})
        assert (await ask(gateway)).status_code == 200
    assert new.requests[0].headers["authorization"] == "Bearer sk-new"


async def test_a_provider_that_leads_back_here_ends_soon(gateway: Running) -> None:
    serve(gateway, cloud(f"{gateway.url}/v1", external={"model": "cloud"}), key=gateway.key.key)
    got = await ask(gateway)
    assert code(got)[0] == 502
    name = "pippin_gateway_requests_total"
    await eventually(lambda: gateway.metric(name, **OF_CLOUD, code="502") == 5)


async def test_a_key_that_was_taken_back_is_used_no_more(gateway: Running) -> None:
    async with upstream() as provider:
        serve(gateway, cloud(plain(provider)))
        gateway.provider_keys.put({"data": {f"{NAMESPACE}.cloud": "bm90IG91cnM="}})
        assert code(await ask(gateway)) == (503, "provider_key_missing")
        gateway.provider_keys.remove({})
        assert code(await ask(gateway)) == (503, "provider_key_missing")
    assert provider.requests == []


# What they answer


def code(response: httpx.Response) -> tuple[int, str]:
    body = response.json()
    assert body["request_id"] == response.headers["x-request-id"]
    return response.status_code, body["error"]["code"]


def failures(gateway: Running, kind: str) -> float:
    name = "pippin_gateway_upstream_errors_total"
    return gateway.metric(name, model="team-a/cloud", kind=kind)


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
