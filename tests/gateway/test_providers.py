"""Models of providers outside: reached with their own key over TLS that is verified, and told apart
from what is the client's own doing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest

from support.certificates import HOUR, Authority
from support.eventually import eventually
from support.gateway import (
    NAMESPACE,
    Running,
    model_object,
    running_gateway,
)
from support.providers import (
    ASK,
    KEY,
    OF_CLOUD,
    PATH,
    ask,
    cloud,
    code,
    failures,
    gateway_of_providers,
    handed,
    names_itself,
    plain,
    serve,
)
from support.upstreams import ANSWER, good, upstream


@pytest.fixture
async def gateway(tmp_path: Path, authority: Authority) -> AsyncIterator[Running]:
    async with gateway_of_providers(tmp_path, authority) as running:
        yield running


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
