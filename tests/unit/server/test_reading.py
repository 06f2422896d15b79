"""Thoughts, calls and words are told apart however the text is cut into tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.generate import TextStateMachine
from mlx_lm.tool_parsers import json_tools

from pippin_server.engines.base import Call, Delta, Finish, Score
from pippin_server.engines.mlx.reading import Marks, Reader

START, END = json_tools.tool_call_start, json_tools.tool_call_end
NAMES = frozenset({"look", "get_weather"})
#: As a model in thought begins, and as others do.
EDGES = {
    "normal": [("<think>", "reasoning"), (START, "tool")],
    "reasoning": [("</think>", "normal"), (START, "tool")],
    "tool": [(END, "normal")],
}


@dataclass
class Read:
    """All that an answer showed."""

    text: str
    reasoning: str
    calls: list[tuple[str, Any]]
    finish: Finish | None


def marks(family: Any = json_tools, *, parallel: bool = True) -> Marks:
    return Marks(
        family.tool_call_start, family.tool_call_end, family.parse_tool_call, NAMES, parallel
    )


def read(pieces: list[str], *, finish: Finish = "stop", parallel: bool = True) -> Read:
    reader = Reader(TextStateMachine(EDGES), "normal", marks(parallel=parallel))
    return joined(reader, pieces, finish)


def joined(reader: Reader, pieces: list[str], finish: Finish = "stop") -> Read:
    deltas = reader.read([*(Delta(piece) for piece in pieces), Delta("", finish=finish)])
    calls = [call for delta in deltas for call in delta.calls]
    return Read(
        "".join(delta.text for delta in deltas),
        "".join(delta.reasoning for delta in deltas),
        [(call.name, json.loads(call.arguments)) for call in calls],
        deltas[-1].finish,
    )


def call(name: str = "look", **arguments: Any) -> str:
    return f"{START}\n{json.dumps({'name': name, 'arguments': arguments})}\n{END}"


def test_words_around_a_call_are_content_and_the_call_is_not() -> None:
    found = read([f"Let me look.\n\n{call(at='sky')}\n"])
    assert found == Read("Let me look.", "", [("look", {"at": "sky"})], "tool_calls")


def test_several_calls_come_in_their_order() -> None:
    found = read([f"{call(a=1)}\n{call('get_weather', b=[2])}"])
    assert found == Read("", "", [("look", {"a": 1}), ("get_weather", {"b": [2]})], "tool_calls")


def test_thoughts_are_no_content() -> None:
    found = read([f"<think>\nWhat is asked?\n</think>\n\nThis.\n{call()}"])
    assert found == Read("This.", "What is asked?", [("look", {})], "tool_calls")


def test_a_call_may_break_off_a_thought() -> None:
    assert read([f"<think>I look{call()}"]) == Read("", "I look", [("look", {})], "tool_calls")


def test_white_space_of_an_answer_without_marks_is_its_own() -> None:
    assert read(["\n a", " \n", "b \n"]) == Read("\n a \nb \n", "", [], "stop")


@pytest.mark.parametrize(
    "inside",
    [
        "",
        "{",
        "null",
        "7",
        '"look"',
        '{"arguments": {}}',
        '{"name": 7, "arguments": {}}',
        '{"name": "look", "arguments": [1]}',
        '{"name": "look", "arguments": "{"}',
        '{"name": "look", "arguments": {"x": NaN}}',
        '{"name": "look", "arguments": {"x": "\\ud800"}}',
        '{"name": "nobody", "arguments": {}}',
        '[{"name": "look", "arguments": {}}, 7]',
        "[" * 100_000,
    ],
)
def test_what_only_looks_like_a_call_is_given_back_as_words(inside: str) -> None:
    answer = f"So: {START}{inside}{END} was it"
    assert read([answer]) == Read(answer, "", [], "stop")


@pytest.mark.parametrize("finish", ["stop", "length"])
def test_a_call_that_was_cut_off_is_given_back_as_words(finish: Finish) -> None:
    answer = f'A {START}\n{{"name": "look", "argu'
    assert read([answer], finish=finish) == Read(answer, "", [], finish)


def test_a_whole_call_counts_though_the_answer_was_cut_off_behind_it() -> None:
    assert read([call()], finish="length") == Read("", "", [("look", {})], "length")


def test_an_answer_ends_with_the_only_call_that_it_may_make() -> None:
    reader = Reader(TextStateMachine(EDGES), "normal", marks(parallel=False))
    deltas = reader.read([Delta(call()[:9]), Delta(call()[9:] + call()), Delta("more")])
    assert [delta.finish for delta in deltas] == [None, "tool_calls"]
    assert deltas[-1].calls == (Call("look", "{}"),)


def test_a_model_may_end_its_answer_with_a_call_and_no_mark() -> None:
    unmarked = call().removesuffix(END)
    assert read([unmarked]) == Read("", "", [("look", {})], "tool_calls")
    assert read([unmarked], finish="length") == Read(unmarked, "", [], "length")


def test_a_stop_ends_words_and_neither_thoughts_nor_calls() -> None:
    reader = Reader(TextStateMachine(EDGES), "normal", marks(), stops=["o"])
    found = joined(reader, ["<think>so</think>", call(x="o"), "hell", "o", " you"])
    assert found == Read("hell", "so", [("look", {"x": "o"})], "tool_calls")


def test_arguments_in_a_string_are_taken() -> None:
    inside = json.dumps({"name": "look", "arguments": '{"a": "ü"}'})
    assert read([f"{START}{inside}{END}"]).calls == [("look", {"a": "ü"})]


def test_scores_are_told_of_words_only() -> None:
    def delta(text: str) -> Delta:
        return Delta(text, scores=((Score(text, text.encode(), -1.0),),))

    reader = Reader(TextStateMachine(EDGES), "normal", marks())
    pieces = ["<think>", "hm", "</think>", "yes", "<", " no", START, "{}", END]
    deltas = reader.read([*map(delta, pieces), Delta("", finish="stop")])
    told = [one[0].text for delta in deltas for one in delta.scores]
    assert told == ["yes", "<", " no", START, "{}", END]
    reader = Reader(TextStateMachine(EDGES), "normal", marks())
    deltas = reader.read([delta("yes"), delta(call()), Delta("", finish="stop")])
    assert [one[0].text for delta in deltas for one in delta.scores] == ["yes"]


WORDS = st.text(alphabet="ab <>/\n", max_size=8) | st.sampled_from(["<tool", "</think", START[:-1]])
CALLS = st.builds(call, st.sampled_from(sorted(NAMES)), x=st.text(max_size=6) | st.integers())
THOUGHTS = st.builds("<think>{}</think>".format, st.text(alphabet="ab \n", max_size=8))


@given(
    st.lists(WORDS | CALLS | THOUGHTS | st.just(f"{START}?{END}"), max_size=6),
    st.data(),
    st.booleans(),
)
def test_any_cutting_shows_the_same(parts: list[str], data: st.DataObject, parallel: bool) -> None:
    whole = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    ends = [0, *cuts, len(whole)]
    pieces = [whole[a:b] for a, b in zip(ends, ends[1:], strict=False)]
    assert read(pieces, parallel=parallel) == read([whole], parallel=parallel)


@given(st.lists(st.text(alphabet="ab <>/", max_size=8) | CALLS, max_size=6), st.data())
def test_no_mark_of_a_call_ever_leaks(parts: list[str], data: st.DataObject) -> None:
    found = read([character for part in parts for character in part])
    assert len(found.calls) == sum(part.startswith(START) for part in parts)
    assert START not in found.text
    assert END not in found.text


@pytest.mark.parametrize(
    ("family", "inside"),
    [
        ("json_tools", '{"name": "get_weather", "arguments": {"city": "Rome"}}'),
        ("mistral", 'get_weather[ARGS]{"city": "Rome"}'),
        ("mistral", '[{"name": "get_weather", "arguments": {"city": "Rome"}}]'),
        ("qwen3_coder", "<function=get_weather><parameter=city>Rome</parameter></function>"),
        ("glm47", "get_weather<arg_key>city</arg_key><arg_value>Rome</arg_value>"),
        ("pythonic", "[get_weather(city='Rome')]"),
        ("gemma4", 'call:get_weather{city:<|"|>Rome<|"|>}'),
        ("function_gemma", "call:get_weather{city:<escape>Rome<escape>}"),
        ("kimi_k2", 'functions.get_weather:0<|tool_call_argument_begin|>{"city": "Rome"}'),
        (
            "minimax_m2",
            '<invoke name="get_weather"><parameter name="city">Rome</parameter></invoke>',
        ),
    ],
)
def test_calls_are_read_in_the_form_of_each_family(family: str, inside: str) -> None:
    module = import_module(f"mlx_lm.tool_parsers.{family}")
    start, end = module.tool_call_start, module.tool_call_end
    edges = {"normal": [(start, "tool")], "tool": [(end, "normal")] if end else []}
    reader = Reader(TextStateMachine(edges), "normal", marks(module))
    found = joined(reader, [*f"Hm. {start}{inside}{end}"])
    assert found == Read("Hm.", "", [("get_weather", {"city": "Rome"})], "tool_calls")


def test_a_models_own_ids_are_kept_where_they_tell_calls_apart() -> None:
    module = import_module("mlx_lm.tool_parsers.kimi_k2")
    one = "<|tool_call_begin|>functions.look:{}<|tool_call_argument_begin|>{{}}<|tool_call_end|>"
    listed = "".join(one.format(number) for number in (4, 5, 5))
    edges = {
        "normal": [(module.tool_call_start, "tool")],
        "tool": [(module.tool_call_end, "normal")],
    }
    reader = Reader(TextStateMachine(edges), "normal", marks(module))
    text = f"{module.tool_call_start}{listed}{module.tool_call_end}"
    (delta,) = reader.read([Delta(text, finish="stop")])
    assert [found.id for found in delta.calls] == ["functions.look:4", "functions.look:5", ""]
