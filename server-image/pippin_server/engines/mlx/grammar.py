"""Grammars, in llguidance's Lark, of answers that think, call functions or follow a schema.

A family's form is known here where it writes arguments as JSON; others cannot be held to anything.
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
    return None


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
        arguments = self._json(function.parameters, strict=function.strict)
        symbols = [*begin, *self._spell(form.between), arguments, *self._spell(form.after)]
        return self.add(f"call_{number}", symbols)

    def _until(self, name: str, end: list[str]) -> list[str]:
        """Anything up to the first `end`."""
        if end[0].startswith("<"):
            return [_ANYTHING, *end]
        return [self.add(f"{name}[lazy]", [_ANYTHING, end[0]]), *end[1:]]

    def _json(self, schema: dict[str, Any], *, strict: bool) -> str:
        # What is asked of arguments is followed as far as it is understood; `strict` is a promise.
        options = {**self._options, "lenient": not strict}
        return f"%json {json.dumps({**schema, 'x-guidance': options})}"
