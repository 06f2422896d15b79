"""Grammars, in llguidance's Lark, of answers that think, call functions or follow a schema.

A family's form is known here where it writes arguments as JSON, or each between tags of its own;
others cannot be held to anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..base import Function, Tools

#: Calls in one answer that must hold calls: a small model may never stop of itself.
_MOST = 16
_ANYTHING = r"/(.|\n)*/"
_BREAKS = r"/\n{0,2}/"

#: A text as symbols of a grammar: tokens that are no text stand there by their numbers.
Spell = Callable[[str], list[str]]


@dataclass(frozen=True, slots=True)
class Tags:
    """Around each argument: `before` its name, `between`, its value, and `after`. Words stand there
    as they are, anything else as JSON."""

    before: str
    between: str
    after: str


@dataclass(frozen=True, slots=True)
class Form:
    """How a family writes calls: `start` and `opening` once, each call as `before` its name,
    `between`, its arguments and `after`, `join` between two calls, and `close` once."""

    start: str
    before: str
    between: str
    after: str
    join: str
    opening: str = ""
    close: str = ""
    #: `before` ends with the call's number, which the model chooses.
    numbered: bool = False
    #: Nothing comes after calls: they have no end of their own.
    last: bool = False
    #: Arguments are no JSON object, but stand one by one.
    tags: Tags | None = None

    def holds(self, function: Function) -> bool:
        """Whether arguments in this form can be promised to follow the schema."""
        properties = function.parameters.get("properties", {})
        return self.tags is None or all(_is_plain(schema) for schema in properties.values())


def form_of(parser: str, template: str) -> Form | None:
    """By the name of mlx_lm's parser, which reads what is written so."""
    match parser:
        case "json_tools":
            start, middle = "<tool_call>", '", "arguments": '
            return Form(start, '\n{"name": "', middle, "}\n</tool_call>", f"\n{start}")
        case "mistral":
            start = "[TOOL_CALLS]"
            if "[ARGS]" in template:
                return Form(start, "", "[ARGS]", "", start, last=True)
            middle = '", "arguments": '
            return Form(start, '{"name": "', middle, "}", ", ", "[", "]", last=True)
        case "kimi_k2":
            return Form(
                start="<|tool_calls_section_begin|>",
                before="<|tool_call_begin|>functions.",
                between="<|tool_call_argument_begin|>",
                after="<|tool_call_end|>",
                join="",
                close="<|tool_calls_section_end|>",
                numbered=True,
            )
        case "qwen3_coder":
            start = "<tool_call>"
            tags = Tags("<parameter=", ">\n", "\n</parameter>\n")
            after = "</function>\n</tool_call>"
            return Form(start, "\n<function=", ">\n", after, f"\n{start}", tags=tags)
        case "glm47":
            start = "<tool_call>"
            tags = Tags("<arg_key>", "</arg_key><arg_value>", "</arg_value>")
            return Form(start, "", "", "</tool_call>", start, tags=tags)
        case "minimax_m2":
            return Form(
                start="<minimax:tool_call>",
                before='\n<invoke name="',
                between='">\n',
                after="</invoke>",
                join="",
                close="\n</minimax:tool_call>",
                tags=Tags('<parameter name="', '">', "</parameter>\n"),
            )
    return None


#: What a parser reads as JSON when the schema says so; anything else it takes for words.
_READ_AS_JSON = ("integer", "number", "boolean", "object", "array")
#: What JSON schemas say of words that a grammar of tags does not follow.
_OF_WORDS = frozenset({"pattern", "format", "minLength", "maxLength", "contentEncoding"})


def _is_plain(schema: Any) -> bool:
    """Of one type, which is what tells parsers how to read the value between the tags."""
    if not isinstance(schema, dict):
        return False
    if schema.get("type") == "string":
        return _choices(schema) is not None or not _OF_WORDS & schema.keys()
    return schema.get("type") in _READ_AS_JSON or _choices(schema) is not None


def _choices(schema: dict[str, Any]) -> list[str] | None:
    """The words of which the value must be one; None: it may be others."""
    given = [schema["const"]] if "const" in schema else schema.get("enum")
    if not given or schema.get("type", "string") != "string":
        return None
    return given if all(isinstance(one, str) for one in given) else None


@dataclass(frozen=True, slots=True)
class Thinking:
    """Marks around thoughts; `opened`: the prompt ends with the first of them."""

    start: str
    end: str
    opened: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an answer must be. `form` is there with `tools`."""

    thinking: Thinking | None = None
    tools: Tools | None = None
    form: Form | None = None
    #: Of answers in words.
    schema: dict[str, Any] | None = None


def grammar(wanted: Wanted, spell: Spell, options: dict[str, Any]) -> str:
    """`options`: of llguidance, for each schema."""
    rules = _Rules(spell, options)
    rules.add("start", [*rules.thoughts(wanted.thinking), rules.answer(wanted)])
    return "\n".join(rules.lines)


class _Rules:
    """The lines of one grammar."""

    def __init__(self, spell: Spell, options: dict[str, Any]) -> None:
        self.lines: list[str] = []
        self._spell = spell
        self._options = options

    def add(self, name: str, symbols: Sequence[str]) -> str:
        self.lines.append(f"{name}: {' '.join(symbols)}")
        return name.partition("[")[0]

    def thoughts(self, thinking: Thinking | None) -> list[str]:
        if thinking is None:
            return []
        first = [] if thinking.opened else self._spell(thinking.start)
        end = self._spell(thinking.end)
        thought = self.add("thought", [*first, *self._until("thinking", end), _BREAKS])
        return [thought if thinking.opened else f"{thought}?"]

    def answer(self, wanted: Wanted) -> str:
        tools, form = wanted.tools, wanted.form
        if tools is None or form is None:
            return self._json(wanted.schema or {}, strict=True)
        start = self._spell(form.start)
        alone = tools.must or wanted.schema is not None
        calls = self._calls(tools, form, several=alone or form.last or bool(form.close))
        if tools.must:
            return self.add("answer", [*start, calls])
        if wanted.schema is not None:
            return self.add("answer", [*start, calls, "|", self._json(wanted.schema, strict=True)])
        found = self.add("found", [*self._until("before", start), calls])
        free = [found, "|", _ANYTHING] if form.last else [f"{found}*", _ANYTHING]
        return self.add("answer", free)

    def _calls(self, tools: Tools, form: Form, *, several: bool) -> str:
        names = [
            self._call(number, function, form) for number, function in enumerate(tools.callable)
        ]
        call = self.add("call", [" | ".join(names)])
        symbols = [*self._spell(form.opening), call]
        if tools.parallel and several:
            symbols.append(f"({' '.join([*self._spell(form.join), call])}){{0,{_MOST - 1}}}")
        return self.add("calls", [*symbols, *self._spell(form.close)])

    def _call(self, number: int, function: Function, form: Form) -> str:
        begin = self._spell(f"{form.before}{function.name}{':' if form.numbered else ''}")
        if form.numbered:
            begin.append("/[0-9]{1,3}/")
        if form.tags is None:
            arguments = [self._json(function.parameters, strict=function.strict)]
        else:
            arguments = self._tagged(f"argument_{number}", function, form.tags)
        symbols = [*begin, *self._spell(form.between), *arguments, *self._spell(form.after)]
        return self.add(f"call_{number}", symbols)

    def _tagged(self, name: str, function: Function, tags: Tags) -> list[str]:
        """Each argument by its own rule, in the schema's order."""
        whole, found = function.parameters, []
        for number, (key, schema) in enumerate(whole.get("properties", {}).items()):
            rule = f"{name}_{number}"
            said = dict(schema) if isinstance(schema, dict) else {}
            said |= {part: whole[part] for part in ("$defs", "definitions") if part in whole}
            value = self._value(rule, said, tags.after, strict=function.strict)
            begin = self._spell(f"{tags.before}{key}{tags.between}")
            self.add(rule, [*begin, *value])
            found.append(rule if key in whole.get("required", ()) else f"{rule}?")
        return found

    def _value(self, rule: str, schema: dict[str, Any], after: str, *, strict: bool) -> list[str]:
        """With what ends it."""
        end, words = self._spell(after), _choices(schema)
        if words is not None:
            return [f"({' | '.join(json.dumps(one) for one in words)})", *end]
        if schema.get("type") in _READ_AS_JSON:
            return [self._json(schema, strict=strict), *end]
        return self._until(f"{rule}_words", end)

    def _until(self, name: str, end: list[str]) -> list[str]:
        """Anything up to the first `end`."""
        if end[0].startswith("<"):
            return [_ANYTHING, *end]
        return [self.add(f"{name}[lazy]", [_ANYTHING, end[0]]), *end[1:]]

    def _json(self, schema: dict[str, Any], *, strict: bool) -> str:
        # What is asked of arguments is followed as far as it is understood; `strict` is a promise.
        options = {**self._options, "lenient": not strict}
        return f"%json {json.dumps({**schema, 'x-guidance': options})}"
