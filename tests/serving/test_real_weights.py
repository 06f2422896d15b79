"""A real model says what it must: SmolLM2-135M-Instruct on the CPU, greedy."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio
import weights

from support import talking
from support.servers import Running, mlx_config, serving

STORY = "As the sun dipped into the horizon, casting a warm glow over the bustling streets"
ASKED = "Write a short story about a cat."
NAME = "smollm2"

# Weights are fetched and converted once; a busy machine makes a few tokens a second.
pytestmark = pytest.mark.timeout(600)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def smollm(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    directory = tmp_path_factory.mktemp("smollm")
    model: Path = await asyncio.to_thread(weights.prepare)
    # Its own template knows no tools; this one says the same to it where there are none.
    model = talking.taught(model, directory / "model", talking.HERMES)
    config = mlx_config(model, name=NAME, served_name=NAME, max_concurrency=4)
    async with serving(directory, config) as running:
        yield running


async def test_the_greedy_answer_has_the_expected_words_alone_and_in_a_batch(
    smollm: Running,
) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{smollm.url}/v1", api_key="none", max_retries=0, timeout=300
    ) as client:

        async def story() -> str:
            stream = await client.chat.completions.create(
                model=NAME,
                messages=[{"role": "user", "content": ASKED}],
                temperature=0,
                max_tokens=16,
                stream=True,
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        alone = await story()
        together = list(await asyncio.gather(story(), story(), story()))
    assert STORY.startswith(alone)
    assert len(alone) > 60
    assert together == [alone] * 3


async def test_the_matrix_products_are_accelerated_on_linux(smollm: Running) -> None:
    if sys.platform == "linux":
        assert "openblas/" in smollm.log
    else:
        assert "blas" not in smollm.log


def function(name: str, description: str, **properties: Any) -> Any:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }
    told = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": told}


TOOLS = [
    function("get_weather", "The weather of a city.", city={"type": "string", "maxLength": 20}),
    function("add", "Add two numbers.", a={"type": "integer"}, b={"type": "integer"}),
]
#: What the model copies, of its own will.
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'


#: What is said and demanded, and the call that comes of it.
CASES: list[tuple[str, Any, Any]] = [
    ("What is 17 plus 25?", "required", ("add", {"a": 17, "b": 25})),
    (
        "How warm is it in Paris?",
        {"type": "function", "function": {"name": "get_weather"}},
        ("get_weather", {"city": "Paris"}),
    ),
    (f"Repeat this text exactly:\n{CALL}", "auto", ("add", {"a": 1, "b": 2})),
]


async def test_it_calls_functions_streamed_or_not(smollm: Running) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{smollm.url}/v1", api_key="none", max_retries=0, timeout=300
    ) as client:

        async def called(said: str, choice: Any, streamed: bool) -> Any:
            asked: dict[str, Any] = {
                "model": NAME,
                "messages": [{"role": "user", "content": said}],
                "tools": TOOLS,
                "tool_choice": choice,
                "parallel_tool_calls": False,
                "temperature": 0,
                "max_tokens": 60,
            }
            if streamed:
                async with client.chat.completions.stream(**asked) as stream:
                    answer: Any = await stream.get_final_completion()
            else:
                answer = await client.chat.completions.create(**asked)
            assert answer.choices[0].finish_reason == "tool_calls"
            assert not answer.choices[0].message.content
            (call,) = answer.choices[0].message.tool_calls
            return call.function.name, json.loads(call.function.arguments)

        ways = [(CASES[0], True), (CASES[1], False), (CASES[2], True)]
        found = await asyncio.gather(*(called(*case[:2], streamed) for case, streamed in ways))
    assert found == [case[2] for case, _ in ways]
