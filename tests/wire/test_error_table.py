"""Every refusal of the assembled gateway is OpenAI's envelope with a request id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from support.gateway import Running, key_object, model_object, new_key, running_gateway

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}


def told(response: httpx.Response) -> tuple[int, str, str]:
    body = response.json()
    assert set(body) == {"error", "request_id"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    assert body["request_id"] == response.headers["x-request-id"]
    assert response.headers["content-type"] == "application/json"
    return response.status_code, body["error"]["type"], body["error"]["code"]


REQUESTS: list[tuple[str, str, dict[str, Any], tuple[int, str, str]]] = [
    ("POST", CHAT, {"json": {"model": "nope"}}, (404, "invalid_request_error", "model_not_found")),
    ("POST", CHAT, {"json": {}}, (400, "invalid_request_error", "invalid_request")),
    ("POST", CHAT, {"json": {"model": 7}}, (400, "invalid_request_error", "invalid_request")),
    ("POST", CHAT, {"json": []}, (400, "invalid_request_error", "invalid_json")),
    (
        "POST",
        CHAT,
        {"content": b'{"model": NaN}', "headers": JSON},
        (400, "invalid_request_error", "invalid_json"),
    ),
    (
        "POST",
        CHAT,
        {"content": '{"model": "qwen"}'.encode("utf-16"), "headers": JSON},
        (400, "invalid_request_error", "invalid_json"),
    ),
    (
        "POST",
        CHAT,
        {"content": b"[" * 1500 + b"]" * 1500, "headers": JSON},
        (400, "invalid_request_error", "invalid_json"),
    ),
    (
        "POST",
        CHAT,
        {"content": b"", "headers": JSON},
        (400, "invalid_request_error", "invalid_json"),
    ),
    (
        "POST",
        CHAT,
        {"data": {"model": "qwen"}},
        (415, "invalid_request_error", "unsupported_media_type"),
    ),
    (
        "POST",
        CHAT,
        {"content": b"x", "headers": {**JSON, "content-encoding": "gzip"}},
        (415, "invalid_request_error", "unsupported_media_type"),
    ),
    (
        "POST",
        CHAT,
        {"content": b"x" * 5000, "headers": JSON},
        (413, "invalid_request_error", "payload_too_large"),
    ),
    ("GET", CHAT, {}, (405, "invalid_request_error", "method_not_allowed")),
    ("DELETE", "/v1/models", {}, (405, "invalid_request_error", "method_not_allowed")),
    ("GET", "/v1/models/nope", {}, (404, "invalid_request_error", "model_not_found")),
    ("GET", "/v1/nothing", {}, (404, "invalid_request_error", "not_found")),
    ("POST", "/", {}, (404, "invalid_request_error", "not_found")),
    ("POST", CHAT, {"json": {"model": "qwen"}}, (503, "server_error", "no_ready_replicas")),
]


@pytest.fixture
async def small(tmp_path: Path) -> Any:
    async with running_gateway(tmp_path, max_body_bytes=4096, queue_timeout_seconds=0) as running:
        yield running


@pytest.mark.parametrize(("method", "path", "body", "expected"), REQUESTS)
async def test_a_refusal_has_its_status_type_and_code(
    small: Running, method: str, path: str, body: dict[str, Any], expected: tuple[int, str, str]
) -> None:
    async with small.client() as http:
        assert told(await http.request(method, path, **body)) == expected
        assert (await http.get("/v1/models")).status_code == 200, "the next request is served"


async def test_a_body_without_a_length_is_counted(small: Running) -> None:
    async def pieces() -> Any:
        for _ in range(3000):
            yield b"x" * 1024

    async with small.client() as http:
        got = await http.post(CHAT, content=pieces(), headers=JSON)
    assert told(got)[0] == 413


@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/v1/nothing", "/"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer"},
        {"authorization": "Basic dXNlcjpwYXNz"},
        {"x-api-key": "pp_aaaaaaaaaaaa_" + "x" * 43},
        {"authorization": "Bearer " + "k" * 5000},
        {"cookie": "key=KEY"},
    ],
)
async def test_without_a_good_key_everything_is_401(
    small: Running, path: str, headers: dict[str, str]
) -> None:
    headers = {name: value.replace("KEY", small.key.key) for name, value in headers.items()}
    async with small.client(key="") as http:
        got = await http.post(f"{path}?api_key={small.key.key}", json={}, headers=headers)
    assert told(got) == (401, "authentication_error", "invalid_api_key")
    assert got.headers["www-authenticate"].startswith("Bearer")


async def test_the_key_may_come_as_x_api_key_but_not_two_different_ones(small: Running) -> None:
    async with small.client(key="") as http:
        one = {"x-api-key": small.key.key}
        assert (await http.get("/v1/models", headers=one)).status_code == 200
        two = {**one, "authorization": f"Bearer {new_key().key}"}
        assert told(await http.get("/v1/models", headers=two))[0] == 401


async def test_disabled_expired_and_rotated_out_keys_are_401(small: Running) -> None:
    past, future = "2020-01-01T00:00:00Z", "2120-01-01T00:00:00Z"
    objects = {
        "disabled": key_object(new := new_key(), "k", enabled=False),
        "expired": key_object(new, "k", expiresAt=past),
        "rotated out": key_object(new, "k"),
        "being deleted": key_object(new, "k"),
        "minted for nobody": key_object(None, "k"),
    }
    objects["rotated out"]["status"]["keys"][0]["notAfter"] = past
    objects["being deleted"]["metadata"]["deletionTimestamp"] = past
    good = key_object(new, "k", expiresAt=future)
    async with small.client(key=new.key) as http:
        for why, raw in objects.items():
            small.store.put("apikeys", good)
            small.store.refresh()
            assert (await http.get("/v1/models")).status_code == 200
            small.store.put("apikeys", raw)
            small.store.refresh()
            assert told(await http.get("/v1/models"))[0] == 401, why


async def test_a_model_that_the_key_may_not_use_is_answered_as_one_that_is_not_there(
    small: Running,
) -> None:
    narrow = new_key()
    small.store.put("apikeys", key_object(narrow, "narrow", models=["llama-*"]))
    small.store.refresh()
    async with small.client(key=narrow.key) as http:
        hidden = await http.post(CHAT, json={"model": "qwen"})
        absent = await http.post(CHAT, json={"model": "nope"})
        listed = await http.get("/v1/models")
    assert told(hidden) == told(absent)
    words = hidden.json()["error"]["message"].replace("qwen", "nope")
    assert words == absent.json()["error"]["message"]
    assert listed.json() == {"object": "list", "data": []}


async def test_the_message_says_why_nobody_is_ready(small: Running) -> None:
    loading = model_object()
    loading["status"] = {"conditions": [{"type": "Ready", "status": "False", "reason": "Loading"}]}
    cases = {
        "is loading": loading,
        "spec.suspend": model_object(suspend=True),
        "spec.replicas": model_object(replicas=0),
    }
    async with small.client() as http:
        for words, raw in cases.items():
            small.store.put("modeldeployments", raw)
            small.store.refresh()
            got = await http.post(CHAT, json={"model": "qwen"})
            assert told(got) == (503, "server_error", "no_ready_replicas")
            assert words in got.json()["error"]["message"]
            assert int(got.headers["retry-after"]) >= 5


async def test_a_request_id_is_kept_when_it_is_harmless_and_made_when_not(small: Running) -> None:
    async with small.client() as http:
        for given, kept in {"a.B_c-1": True, "x" * 129: False, "a b": False, "": False}.items():
            got = await http.get("/v1/models", headers={"x-request-id": given})
            assert (got.headers["x-request-id"] == given) is kept
            assert got.headers["x-request-id"]


async def test_a_bug_is_a_500_whose_words_stay_in_the_log(
    small: Running, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        by_namespace = property(lambda self: 1 / 0)
        keyring = small.store.catalog.keyring

    monkeypatch.setattr(small.store, "catalog", Broken())
    async with small.client() as http:
        got = await http.get("/v1/models")
    assert told(got) == (500, "server_error", "internal_error")
    assert "division" not in got.text
    logged = capfd.readouterr()
    assert "division by zero" in logged.out + logged.err
