"""What requests ask of the choice of tokens with MLX: JSON by a schema, biases, penalties."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import jsonschema
import openai
import pytest

from support.servers import Running

SCHEMA = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "green", "blue"]},
        "size": {"type": "integer", "minimum": 1, "maximum": 12},
        "parts": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
        "note": {"type": "string", "maxLength": 8},
    },
    "required": ["colour", "size", "parts", "note"],
    "additionalProperties": False,
}
BY_SCHEMA = {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA}}


def body(content: str = "hello world", **options: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": content}]
    return {"model": "tiny", "messages": messages, "temperature": 0, "max_tokens": 150, **options}


async def said(server: Running, **options: Any) -> tuple[str, str]:
    answer = await server.post("/v1/chat/completions", body(**options))
    assert answer.status_code == 200, answer.text
    choice = answer.json()["choices"][0]
    return choice["message"]["content"], choice["finish_reason"]


@pytest.mark.parametrize("temperature", [0, 1.5])
async def test_an_answer_follows_its_schema(tiny: Running, temperature: float) -> None:
    for seed in range(4):
        text, finish = await said(
            tiny, response_format=BY_SCHEMA, temperature=temperature, seed=seed
        )
        assert finish == "stop"
        jsonschema.validate(json.loads(text), SCHEMA)


async def test_a_streamed_answer_follows_it_too(tiny: Running) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{tiny.url}/v1", api_key="none", max_retries=0
    ) as client:
        stream = await client.chat.completions.create(
            **body(response_format=BY_SCHEMA), stream=True
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == (await said(tiny, response_format=BY_SCHEMA))[0]
    jsonschema.validate(json.loads(text), SCHEMA)


async def test_json_object_is_an_object(tiny: Running) -> None:
    text, finish = await said(tiny, response_format={"type": "json_object"})
    assert text.startswith("{")
    if finish == "stop":
        assert isinstance(json.loads(text), dict)


async def test_a_guided_row_changes_no_other(tiny: Running) -> None:
    free = {"max_tokens": 40}
    alone = await said(tiny, **free), await said(tiny, response_format=BY_SCHEMA)
    crowd = [
        said(tiny, response_format=BY_SCHEMA) if number % 2 else said(tiny, **free)
        for number in range(10)
    ]
    together = await asyncio.gather(*crowd)
    assert {together[0], together[2], together[8]} == {alone[0]}
    assert {together[1], together[3], together[9]} == {alone[1]}


async def test_a_bias_chooses_or_forbids_a_token(tiny: Running) -> None:
    plain = await said(tiny, max_tokens=6)
    forced = await said(tiny, max_tokens=6, logit_bias={"40": 100})
    other = await said(tiny, max_tokens=6, logit_bias={"41": 100})
    assert len({plain, forced, other}) == 3
    both = await said(tiny, max_tokens=6, logit_bias={"40": 100, "41": -100})
    assert both == forced


async def test_penalties_make_an_answer_repeat_less(tiny: Running) -> None:
    async def distinct(**options: Any) -> int:
        text, _ = await said(tiny, max_tokens=40, **options)
        return len(set(text.split()))

    plain = await distinct(logit_bias={"40": 3})
    assert await distinct(logit_bias={"40": 3}, frequency_penalty=2) > plain
    assert await distinct(logit_bias={"40": 3}, presence_penalty=2) >= plain


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"logit_bias": {"99999": 1}}, "logit_bias"),
        ({"logit_bias": {"forty": 1}}, "logit_bias.forty"),
        ({"logit_bias": {"40": 101}}, "logit_bias.40"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
        ({"presence_penalty": "much"}, "presence_penalty"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"type": "nothing"}},
                }
            },
            "response_format",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"enum": ["x" * 70_000]}},
                }
            },
            "response_format",
        ),
    ],
)
async def test_what_cannot_be_followed_is_refused_by_its_name(
    tiny: Running, options: dict[str, Any], param: str
) -> None:
    answer = await tiny.post("/v1/chat/completions", body(**options))
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize("field", ["response_format", "logit_bias", "frequency_penalty"])
async def test_an_engine_that_cannot_says_so(echo: Running, field: str) -> None:
    asked = {
        "response_format": {"type": "json_object"},
        "logit_bias": {"1": 1},
        "frequency_penalty": 1,
    }
    answer = await echo.post(
        "/v1/chat/completions", {**body(), "model": "echo", field: asked[field]}
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "unsupported_parameter"
    assert answer.json()["error"]["param"] == field
