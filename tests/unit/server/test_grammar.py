"""Whatever tokens a grammar lets through, the answer is what was asked for: each family's own
parser reads calls in it that follow their schemas."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import numpy
import pytest
from mlx_lm import tokenizer_utils

from pippin_server.engines.base import Call, Delta, Function, Message, Prompt, PromptRefused, Tools
from pippin_server.engines.mlx.dialect import Dialect
from pippin_server.engines.mlx.guide import Guides
from support import tinymodel

EOS = 2
WALKS = 8
WEATHER = {
    "type": "object",
    "properties": {"days": {"type": "integer", "maximum": 99}, "unit": {"enum": ["C", "F"]}},
    "required": ["days"],
    "additionalProperties": False,
}
NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
NOTE = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "marks": {"type": "array", "items": {"$ref": "#/$defs/mark"}, "maxItems": 2},
        "urgent": {"type": "boolean"},
    },
    "required": ["text", "marks"],
    "additionalProperties": False,
    "$defs": {"mark": {"enum": [1, 2]}},
}
SCHEMAS = {"get_weather": WEATHER, "quit": NOTHING, "note": NOTE}
FUNCTIONS = (
    Function("get_weather", WEATHER, strict=True),
    Function("quit", NOTHING),
    Function("note", NOTE, strict=True),
)
COLOUR = {
    "type": "object",
    "properties": {"c": {"enum": ["red"]}},
    "required": ["c"],
    "additionalProperties": False,
}
#: What mlx_lm knows a family by, and the marks that are tokens of it.
FAMILIES = {
    "text": ("<tool_call> tool_call.name", ()),
    "hermes": ("<tool_call> tool_call.name", ("<tool_call>", "</tool_call>")),
    "thinking": ("<tool_call> tool_call.name", ("<think>", "</think>")),
    "mistral": ("[TOOL_CALLS][ARGS]", ("[TOOL_CALLS]", "[ARGS]")),
    "mistral-list": ("[TOOL_CALLS]", ("[TOOL_CALLS]",)),
    "kimi": (
        "<|tool_calls_section_begin|>",
        (
            "<|tool_calls_section_begin|>",
            "<|tool_calls_section_end|>",
            "<|tool_call_begin|>",
            "<|tool_call_argument_begin|>",
            "<|tool_call_end|>",
        ),
    ),
    "qwen-coder": ("<tool_call>\n<function=", ("<tool_call>", "</tool_call>")),
    "glm": (
        "<arg_key>",
        ("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
    ),
    "minimax": ("<minimax:tool_call>", ("<minimax:tool_call>", "</minimax:tool_call>")),
    "gemma": ("<|tool_call> <tool_call|>", ("<|tool_call>", "<tool_call|>")),
}
TAGGED = ["glm", "minimax", "qwen-coder"]
#: What nobody would write by chance, and these families must, so that words have an end.
HABITS = {"minimax": "</parameter>\n", "qwen-coder": "\n</parameter>\n"}
HELD = sorted(set(FAMILIES) - {"gemma"})


@dataclass
class Family:
    """A tokenizer, and what is known of its marks."""

    tokenizer: Any
    dialect: Dialect
    guides: Guides
    #: Of each token whether it is one of its marks, or the end.
    rare: Any
    #: Tokens that are often written one after the other.
    habit: list[int]

    def walk(
        self, tools: Tools | None, seed: int, schema: Any = None, opened: bool = False
    ) -> tuple[str, str, list[Call]]:
        """An answer of tokens drawn blindly from those allowed: its words, thoughts and calls."""
        prompt = Prompt(messages=(Message("user", "hello"),), tools=tools)
        tokens = [5, 6, *(self.tokenizer.encode("<think>\n") if opened else [])]
        wanted = self.dialect.wanted(prompt, schema, tokens)
        assert wanted is not None
        guide, numbers = self.guides.make(wanted), random.Random(seed)
        reader = self.dialect.reader(prompt, (), tokens, guided=True)
        assert reader is not None
        detokenizer, deltas = self.tokenizer.detokenizer, []
        writing: list[int] = []
        while not deltas or deltas[-1].finish is None:
            allowed = guide.allowed()
            if self.habit and not writing and numbers.random() < 0.1:
                writing = list(self.habit)
            if writing and allowed[writing[0]]:
                token = writing.pop(0)
            else:
                token, writing = self._drawn(allowed, numbers), []
            guide.saw(token)
            if token == EOS:
                detokenizer.finalize()
            else:
                detokenizer.add_token(token)
            finish = "stop" if token == EOS else None
            deltas += reader.read([Delta(detokenizer.last_segment, finish=finish)])
        text = "".join(delta.text for delta in deltas)
        thought = "".join(delta.reasoning for delta in deltas)
        return text, thought, [call for delta in deltas for call in delta.calls]

    def _drawn(self, allowed: Any, numbers: random.Random) -> int:
        """Marks and the end more often than blindly, so that answers have both, and an end."""
        tokens = numpy.flatnonzero(allowed)
        rare = numpy.flatnonzero(allowed & self.rare)
        return int(numbers.choice(rare if len(rare) and numbers.random() < 0.4 else tokens))


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Family]:
    made: dict[str, Family] = {}

    def make(name: str) -> Family:
        template, marks = FAMILIES[name]
        into: Path = tmp_path_factory.mktemp(name) / "model"
        tinymodel.make(into, tinymodel.Shape(marks=marks), template)
        tokenizer = tokenizer_utils.load(into)
        rare = numpy.zeros(len(tokenizer), dtype=bool)
        rare[[EOS, *tokenizer.convert_tokens_to_ids(list(marks))]] = True
        guides = Guides(tokenizer, len(tokenizer), [EOS])
        habit = tokenizer.encode(HABITS.get(name, ""), add_special_tokens=False)
        return Family(tokenizer, Dialect(tokenizer), guides, rare, habit)

    return lambda name: made.get(name) or made.setdefault(name, make(name))


def check(calls: list[Call], names: set[str]) -> None:
    for call in calls:
        assert call.name in names
        jsonschema.validate(json.loads(call.arguments), SCHEMAS[call.name])


@pytest.mark.parametrize("name", HELD)
def test_an_answer_that_must_call_holds_calls_and_nothing_else(
    family: Callable[[str], Family], name: str
) -> None:
    several = 0
    for seed in range(WALKS):
        text, _, calls = family(name).walk(Tools(FUNCTIONS, must=True), seed)
        assert (text, bool(calls)) == ("", True)
        check(calls, set(SCHEMAS))
        several += len(calls) > 1
    assert several


@pytest.mark.parametrize("name", HELD)
def test_a_named_function_is_called_once(family: Callable[[str], Family], name: str) -> None:
    tools = Tools(FUNCTIONS, must=True, only="get_weather", parallel=False)
    for seed in range(WALKS):
        text, _, (call,) = family(name).walk(tools, seed)
        assert text == ""
        check([call], {"get_weather"})


@pytest.mark.parametrize("name", HELD)
def test_calls_of_ones_own_will_follow_strict_schemas(
    family: Callable[[str], Family], name: str
) -> None:
    walks = [family(name).walk(Tools(FUNCTIONS), seed) for seed in range(3 * WALKS)]
    for _, _, calls in walks:
        check(calls, set(SCHEMAS))
    assert any(text for text, _, _ in walks)
    if name not in ("text", "thinking"):  # whose marks nobody writes by chance
        assert any(calls for _, _, calls in walks)


@pytest.mark.parametrize("name", HELD)
def test_words_follow_their_schema_where_calls_are_possible(
    family: Callable[[str], Family], name: str
) -> None:
    kinds = set()
    for seed in range(3 * WALKS):
        text, _, calls = family(name).walk(Tools(FUNCTIONS), seed, COLOUR)
        kinds.add(bool(calls))
        check(calls, set(SCHEMAS))
        assert calls or json.loads(text) == {"c": "red"}
    assert kinds == {True, False}


@pytest.mark.parametrize("tools", [Tools(FUNCTIONS, must=True), None])
def test_a_thought_that_the_prompt_began_comes_first(
    family: Callable[[str], Family], tools: Tools | None
) -> None:
    thoughts = []
    for seed in range(WALKS):
        text, thought, calls = family("thinking").walk(tools, seed, COLOUR, opened=True)
        thoughts.append(thought)
        assert bool(calls) == (tools is not None)
        assert calls or json.loads(text) == {"c": "red"}
    assert any(thoughts)


@pytest.mark.parametrize(
    ("tools", "schema", "param", "words"),
    [
        (Tools(FUNCTIONS, must=True), None, "tool_choice", "'auto'"),
        (Tools(FUNCTIONS), None, "tools", "leave out 'strict'"),
        (Tools(FUNCTIONS[1:2]), COLOUR, "response_format", "without tools"),
    ],
)
def test_what_a_family_cannot_be_held_to_is_refused(
    family: Callable[[str], Family], tools: Tools, schema: Any, param: str, words: str
) -> None:
    prompt = Prompt(messages=(Message("user", "hello"),), tools=tools)
    with pytest.raises(PromptRefused, match=words) as refused:
        family("gemma").dialect.wanted(prompt, schema, [5])
    assert refused.value.param == param


@pytest.mark.parametrize("name", TAGGED)
@pytest.mark.parametrize(
    ("schema", "held"),
    [
        ({"type": "string"}, True),
        ({"enum": ["a", "b"]}, True),
        ({"type": "string", "pattern": "a+"}, False),
        ({"type": ["string", "null"]}, False),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, False),
        ({}, False),
        (True, False),
    ],
)
def test_tags_do_not_promise_what_their_parsers_cannot_tell(
    family: Callable[[str], Family], name: str, schema: Any, held: bool
) -> None:
    parameters = {"type": "object", "properties": {"x": schema}}
    for strict in (True, False):
        tools = Tools((Function("f", parameters, strict=strict),), must=True)
        if strict and not held:
            with pytest.raises(PromptRefused, match="'strict' of 'f' cannot be kept"):
                family(name).walk(tools, 1)
        else:
            assert family(name).walk(tools, 1)[2]


def test_a_free_answer_is_not_held_to_anything(family: Callable[[str], Family]) -> None:
    prompt = Prompt(messages=(Message("user", "hello"),), tools=Tools(FUNCTIONS[1:2]))
    assert family("gemma").dialect.wanted(prompt, None, [5]) is None


@pytest.mark.parametrize("strict", [True, False])
def test_a_schema_that_is_no_schema_is_named(family: Callable[[str], Family], strict: bool) -> None:
    broken = Function("b", {"type": "object", "properties": {"x": {"type": "thing"}}}, None, strict)
    prompt = Prompt(messages=(), tools=Tools((FUNCTIONS[0], broken), must=True))
    dialect, guides = family("hermes").dialect, family("hermes").guides
    wanted = dialect.wanted(prompt, None, [5])
    assert wanted is not None
    with pytest.raises(PromptRefused) as refused:
        guides.make(wanted)
    assert refused.value.param == "tools.1.function.parameters"
