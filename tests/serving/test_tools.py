"""Functions that answers call: asked for, streamed, and refused by name where they cannot be."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from support import talking, tinymodel
from support.servers import Running, mlx_config, serving

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"unit": {"enum": ["C", "F"]}, "days": {"type": "integer", "maximum": 9}},
            "required": ["unit", "days"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
CLOCK: dict[str, Any] = {"type": "function", "function": {"name": "get_time"}}
NAMED = {"type": "function", "function": {"name": "get_time"}}
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello world"}]
CALLED: dict[str, Any] = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}
    ],
}
ANSWERED = {"role": "tool", "tool_call_id": "call_1", "content": "12:30"}
#: Numbers of the marks in the thinking model's vocabulary, and of what ends an answer.
END = 2
THINK_END, CALL_START = (3 + talking.MARKS.index(mark) for mark in ("</think>", "<tool_call>"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def thinking(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A tiny model that knows tools, and whose prompts end where it begins to think."""
    directory: Path = tmp_path_factory.mktemp("thinking")
    shape = tinymodel.Shape(marks=talking.MARKS, context=2048)
    model = tinymodel.make(directory / "model", shape, talking.THINKING)
    async with serving(directory, mlx_config(model)) as running:
        yield running


async def ask(server: Running, **options: Any) -> ChatCompletion:
    asked: dict[str, Any] = {"messages": HELLO, "model": "tiny", "temperature": 0, **options}
    async with a_client(server) as client:
        answer: ChatCompletion = await client.chat.completions.create(**asked)
    return answer


async def stream(server: Running, **options: Any) -> list[ChatCompletionChunk]:
    asked: dict[str, Any] = {"messages": HELLO, "model": "tiny", "temperature": 0, **options}
    async with a_client(server) as client:
        return [chunk async for chunk in await client.chat.completions.create(**asked, stream=True)]


def a_client(server: Running) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


async def test_the_named_function_is_called_of_two(echo: Running) -> None:
    answer = await ask(echo, model="echo", tools=[WEATHER, CLOCK], tool_choice=NAMED)
    (choice,) = answer.choices
    (call,) = choice.message.tool_calls or []
    assert (call.type, choice.finish_reason) == ("function", "tool_calls")
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == ("get_time", "{}")
    assert call.id.startswith("call_")
    assert choice.message.content is None


async def test_a_streamed_call_tells_who_is_called_and_then_with_what(echo: Running) -> None:
    chunks = await stream(echo, model="echo", tools=[CLOCK], tool_choice="required")
    first, begun, rest, last = (chunk.choices[0] for chunk in chunks)
    assert (first.delta.role, last.finish_reason) == ("assistant", "tool_calls")
    ((who,), (what,)) = begun.delta.tool_calls or [], rest.delta.tool_calls or []
    assert who.function is not None
    assert (who.index, who.type, who.function.name) == (0, "function", "get_time")
    assert (who.id or "").startswith("call_")
    assert who.function.arguments == ""
    assert what.function is not None
    assert (what.index, what.id, what.function.arguments) == (0, None, "{}")
    assert not any(chunk.choices[0].delta.content for chunk in chunks)


async def test_every_call_of_several_answers_has_an_id_of_its_own(echo: Running) -> None:
    answers = [
        await ask(echo, model="echo", tools=[CLOCK], tool_choice="required", n=2) for _ in "ab"
    ]
    ids = {
        call.id
        for answer in answers
        for choice in answer.choices
        for call in choice.message.tool_calls or []
    }
    assert len(ids) == 4


async def test_a_function_that_was_called_can_be_answered(echo: Running) -> None:
    first = await ask(echo, model="echo", tools=[CLOCK], tool_choice="required")
    said: Any = first.choices[0].message.model_dump()
    result = {**ANSWERED, "tool_call_id": said["tool_calls"][0]["id"]}
    again = await ask(echo, model="echo", tools=[CLOCK], messages=[*HELLO, said, result])
    assert again.choices[0].message.content == "12:30"
    assert again.choices[0].finish_reason == "stop"


def changed(**fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", **fields}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [changed()] * 2}, "tools"),
        ({"tools": [changed(name=f"f{n}") for n in range(129)]}, "tools"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools.0.type"),
        ({"tools": [changed(name="no blanks")]}, "tools.0.function.name"),
        ({"tools": [changed(strict="yes")]}, "tools.0.function.strict"),
        ({"tools": [changed(parameters=[])]}, "tools.0.function.parameters"),
        ({"tools": [changed(parameters={"type": "array"})]}, "tools.0.function.parameters"),
        ({"tools": [changed(returns={})]}, "tools.0.function.returns"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": NAMED, "tools": [changed()]}, "tool_choice"),
        ({"tool_choice": "any", "tools": [changed()]}, "tool_choice"),
        ({"tool_choice": {"type": "function"}, "tools": [changed()]}, "tool_choice"),
        ({"parallel_tool_calls": 1, "tools": [changed()]}, "parallel_tool_calls"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.tool_call_id"),
        ({"messages": [{"role": "assistant", "content": None}]}, "messages.0.content"),
        ({"messages": [{**CALLED, "role": "user"}]}, "messages.0.tool_calls"),
        ({"messages": [{**ANSWERED, "role": "user"}]}, "messages.0.tool_call_id"),
    ],
)
async def test_what_is_wrong_with_tools_is_named(
    echo: Running, fields: dict[str, Any], param: str
) -> None:
    body = {"model": "echo", "messages": HELLO, **fields}
    answer = await echo.post("/v1/chat/completions", body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    assert param.rpartition(".")[2] in error["message"]


@pytest.mark.parametrize("arguments", ["{", "[]", "7"])
async def test_arguments_of_earlier_calls_are_objects(echo: Running, arguments: str) -> None:
    (call,) = CALLED["tool_calls"]
    wrong = {**call, "function": {"name": "f", "arguments": arguments}}
    body = {"model": "echo", "messages": [*HELLO, {**CALLED, "tool_calls": [call, wrong]}]}
    answer = await echo.post("/v1/chat/completions", body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "messages.1.tool_calls.1.function.arguments"


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"tools": [CLOCK]}, "tools"), ({"messages": [*HELLO, CALLED, ANSWERED]}, "messages")],
)
async def test_a_model_that_knows_no_tools_says_so(
    tiny: Running, fields: dict[str, Any], param: str
) -> None:
    body = {"model": "tiny", "messages": HELLO, **fields}
    answer = await tiny.post("/v1/chat/completions", body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert "serve a model that was trained to call functions" in answer.json()["error"]["message"]


async def test_without_a_choice_tools_do_not_matter_to_such_a_model(tiny: Running) -> None:
    plain = await ask(tiny, max_tokens=8)
    asked = await ask(tiny, max_tokens=8, tools=[CLOCK], tool_choice="none")
    assert asked.choices[0].message.content == plain.choices[0].message.content


async def test_thoughts_are_no_content(thinking: Running) -> None:
    answer = await ask(thinking, max_tokens=12)
    message = answer.choices[0].message
    thought = message.model_dump()["reasoning_content"]
    assert (message.content, bool(thought)) == ("", True)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12
    chunks = await stream(thinking, max_tokens=12)
    deltas = [chunk.choices[0].delta.model_dump() for chunk in chunks]
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == thought
    assert not any(delta["content"] for delta in deltas)


async def test_json_by_a_schema_comes_behind_the_thought(thinking: Running) -> None:
    schema = WEATHER["function"]["parameters"]
    answer = await ask(
        thinking,
        max_tokens=60,
        logit_bias={THINK_END: 100},
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    )
    found = json.loads(answer.choices[0].message.content or "")
    assert found["unit"] in ("C", "F")


@pytest.mark.parametrize("parallel", [True, False])
async def test_a_required_call_comes_behind_the_thought(thinking: Running, parallel: bool) -> None:
    asked: dict[str, Any] = {
        "tools": [WEATHER, CLOCK],
        "tool_choice": "required",
        "parallel_tool_calls": parallel,
        "logit_bias": {THINK_END: 100, END: -100},
        "max_tokens": 1200,
    }
    answer = await ask(thinking, **asked)
    (choice,) = answer.choices
    calls = choice.message.tool_calls or []
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    assert len(calls) == (16 if parallel else 1)
    assert len({call.id for call in calls}) == len(calls)
    told: dict[int, list[str]] = {}
    for chunk in await stream(thinking, **asked):
        assert not chunk.choices[0].delta.content
        for piece in chunk.choices[0].delta.tool_calls or []:
            assert piece.function is not None
            told.setdefault(piece.index, []).append(piece.function.arguments or "")
    whole = [call.function.arguments for call in calls if call.type == "function"]
    assert ["".join(told[index]) for index in sorted(told)] == whole


async def test_what_is_no_call_is_content_and_no_error(thinking: Running) -> None:
    answer = await ask(
        thinking, tools=[CLOCK], max_tokens=6, logit_bias={CALL_START: 100}, logprobs=True
    )
    (choice,) = answer.choices
    assert choice.message.content == "<tool_call>" * 6
    assert (choice.finish_reason, choice.message.tool_calls) == ("length", None)


async def test_a_chat_with_calls_and_their_answers_is_read(thinking: Running) -> None:
    plain = await ask(thinking, max_tokens=1)
    longer = await ask(thinking, max_tokens=1, messages=[*HELLO, CALLED, ANSWERED], tools=[CLOCK])
    assert plain.usage is not None
    assert longer.usage is not None
    assert longer.usage.prompt_tokens > plain.usage.prompt_tokens + 50


async def test_a_schema_of_a_tool_that_cannot_be_followed_is_named(thinking: Running) -> None:
    broken = changed(parameters={"properties": {"x": {"type": "thing"}}})
    body = {"model": "tiny", "messages": HELLO, "tools": [CLOCK, broken], "tool_choice": "required"}
    answer = await thinking.post("/v1/chat/completions", body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "tools.1.function.parameters"
