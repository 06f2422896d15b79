"""What /openapi.json says is what a server does: no more, no less, and no other answer."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from fastapi import APIRouter

from pippin_server.routes import openapi
from support.openapi import described, does_as_described, valid
from support.servers import Running

SAID: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
CHAT: dict[str, Any] = {"model": "echo", "messages": SAID}


async def test_a_server_that_chats_does_as_it_says(echo: Running) -> None:
    chat, text = {"json": CHAT}, {"json": {"model": "echo", "prompt": "hi"}}
    await does_as_described(echo, {"/v1/chat/completions": chat, "/v1/completions": text})


@pytest.mark.parametrize(
    ("body", "good"),
    [
        (CHAT, True),
        (CHAT | {"temperature": 0.5, "stop": ["a"], "n": 2, "user": "me"}, True),
        (CHAT | {"tools": [{"type": "function", "function": {"name": "f"}}]}, True),
        (CHAT | {"logit_bias": {}, "store": False, "frequency_penalty": 0}, True),
        (CHAT | {"temperature": 3}, False),
        (CHAT | {"bogus": 1}, False),
        (CHAT | {"frequency_penalty": 1}, False),
        (CHAT | {"logit_bias": {"1": 1}}, False),
        ({"model": "echo"}, False),
        ({"model": "echo", "messages": []}, False),
    ],
)
async def test_a_body_that_is_described_is_taken_and_no_other(
    echo: Running, body: dict[str, Any], good: bool
) -> None:
    document = await described(echo)
    content = document["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]
    answer = await echo.post("/v1/chat/completions", body)
    assert answer.status_code == (200 if good else 400)
    try:
        valid(document, content["application/json"]["schema"], body)
    except jsonschema.ValidationError:
        assert not good
    else:
        assert good


def test_a_route_that_is_not_told_of_keeps_the_server_from_starting() -> None:
    routes = APIRouter()
    routes.add_api_route("/secret", lambda: None)
    with pytest.raises(LookupError, match="/secret"):
        openapi.router([routes], lambda: openapi.Described(lambda path, schemas: None, None))
