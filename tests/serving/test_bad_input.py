"""What is wrong is refused by its name, in OpenAI's envelope, with the request's id."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from support.servers import Running

HELLO = [{"role": "user", "content": "hi"}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}


def said(response: httpx.Response) -> dict[str, Any]:
    body: dict[str, Any] = response.json()
    assert set(body) == {"error", "request_id"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["request_id"] == response.headers["x-request-id"]
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages.0.content"),
        ({"model": ""}, "model"),
        ({"model": 5}, "model"),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"min_p": 2}, "min_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens"),
        ({"seed": "abc"}, "seed"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"n": 17}, "n"),
        ({"n": 0}, "n"),
        ({"n": True}, "n"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools.0.function.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"presence_penalty": -1}, "presence_penalty"),
        ({"temprature": 1}, "temprature"),
    ],
)
async def test_a_wrong_field_of_a_chat_is_named(
    echo: Running, fields: dict[str, Any], param: str
) -> None:
    response = await echo.post(
        "/v1/chat/completions", {"model": "echo", "messages": HELLO, **fields}
    )
    error = said(response)
    assert response.status_code == 400
    assert error["type"] == "invalid_request_error"
    assert error["param"].startswith(param)
    assert param.rpartition(".")[2] in error["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"echo": 1}, "echo"),
        ({"echo": True, "logprobs": 1}, "logprobs"),
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"logprobs": 2}, "logprobs"),
    ],
)
async def test_a_wrong_field_of_a_completion_is_named(
    echo: Running, fields: dict[str, Any], param: str
) -> None:
    response = await echo.post("/v1/completions", {"model": "echo", "prompt": "hi", **fields})
    assert response.status_code == 400
    assert said(response)["param"].startswith(param)


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1, "tools": [], "tool_choice": "auto", "parallel_tool_calls": True},
        {"response_format": {"type": "text"}, "logprobs": False, "logit_bias": {}},
        {"frequency_penalty": 0, "presence_penalty": 0.0, "user": "u", "metadata": {"a": "b"}},
        {"stop": None, "temperature": None, "stream": False, "seed": 4, "top_k": -1, "min_p": 0},
        {"messages": [{"role": "developer", "content": [{"type": "text", "text": "hi"}]}]},
    ],
)
async def test_fields_that_ask_for_nothing_new_are_fine(
    echo: Running, fields: dict[str, Any]
) -> None:
    response = await echo.post(
        "/v1/chat/completions", {"model": "echo", "messages": HELLO, **fields}
    )
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"model": NaN}', '{"model": "echo"}'.encode("utf-16")]
)
async def test_a_body_that_is_no_json_object_is_refused(echo: Running, body: bytes) -> None:
    async with echo.client() as client:
        response = await client.post(
            "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
        )
    assert response.status_code == 400
    assert said(response)["code"] == "invalid_json"


async def test_other_content_is_415(echo: Running) -> None:
    async with echo.client() as client:
        response = await client.post("/v1/chat/completions", data={"model": "echo"})
        packed = await client.post(
            "/v1/completions",
            content=b"x",
            headers={"content-type": "application/json", "content-encoding": "gzip"},
        )
    assert (response.status_code, said(response)["code"]) == (415, "unsupported_media_type")
    assert packed.status_code == 415


async def test_a_body_over_the_cap_is_413(echo: Running) -> None:
    async with echo.client() as client:
        request = client.build_request("POST", "/v1/completions", content=b"{}")
        request.headers["content-length"] = str(9 << 20)  # refused by its length, before the body
        request.headers["content-type"] = "application/json"
        reader, writer = await asyncio.open_connection(request.url.host, request.url.port)
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    writer.write(f"POST /v1/completions HTTP/1.1\r\n{head}\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), timeout=10)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"payload_too_large"' in answer


async def test_an_unknown_model_is_404(echo: Running) -> None:
    response = await echo.post("/v1/chat/completions", {"model": "gpt", "messages": HELLO})
    error = said(response)
    assert response.status_code == 404
    assert (error["code"], error["param"]) == ("model_not_found", "model")


async def test_paths_and_methods_that_are_not_there_have_the_envelope(echo: Running) -> None:
    nowhere = await echo.get("/v1/nothing")
    wrong = await echo.get("/v1/chat/completions")
    assert (nowhere.status_code, said(nowhere)["code"]) == (404, "not_found")
    assert (wrong.status_code, said(wrong)["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"


async def test_the_clients_request_id_is_kept_and_a_bad_one_replaced(echo: Running) -> None:
    body = {"model": "echo", "messages": HELLO, "stream": True}
    kept = await echo.post("/v1/chat/completions", body, headers={"x-request-id": "abc.1-2_3"})
    replaced = await echo.get("/v1/models")
    async with echo.client(headers={"x-request-id": "spaces are bad"}) as client:
        bad = await client.get("/v1/models")
    assert kept.headers["x-request-id"] == "abc.1-2_3"
    events = [line for line in kept.text.splitlines() if line.startswith("data: {")]
    assert events
    assert all('"request_id":"abc.1-2_3"' in event for event in events)
    assert replaced.json()["request_id"] == replaced.headers["x-request-id"]
    assert bad.headers["x-request-id"].startswith("req-")


async def test_a_chat_model_says_that_it_does_not_embed(echo: Running) -> None:
    answer = await echo.post("/v1/embeddings", {"model": "echo", "input": "cat"})
    error = said(answer)
    assert (answer.status_code, error["param"]) == (400, "model")
    assert error["message"] == "this model does chat, not /v1/embeddings"
    other = await echo.post("/v1/embeddings", {"model": "nobody", "input": "cat"})
    assert (other.status_code, said(other)["code"]) == (404, "model_not_found")
