"""What a model's family writes around its words: the marks of thoughts and of calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlx_lm.generate import TextStateMachine

from ..base import Prompt, PromptRefused, Tools
from .grammar import Form, Thinking, Wanted, form_of
from .reading import Marks, Reader
from .turns import offered

#: Tokens behind the mark that opens thoughts, at most: a template adds a line break.
_TAIL = 4
_WITHOUT_TOOLS = (
    "this model's chat template knows no tools, or its calls have a form that cannot be read here: "
    "leave them out, or serve a model that was trained to call functions"
)


class Dialect:
    """Of one tokenizer, as mlx_lm found it out."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._calls: bool = tokenizer.has_tool_calling
        self._thinks: bool = tokenizer.has_thinking
        parser = getattr(tokenizer.tool_parser, "__module__", "").rpartition(".")[2]
        template = tokenizer.chat_template
        self.short_ids = parser == "mistral"
        self._form = form_of(parser, template if isinstance(template, str) else "")
        self._machines = {
            (calls, guided): self._machine(calls=calls, guided=guided)
            for calls in {False, self._calls}
            for guided in (False, True)
        }

    def check(self, prompt: Prompt) -> None:
        """Raises PromptRefused for tools that would be lost on this model."""
        if self._calls:
            return
        if prompt.tools is not None:
            raise PromptRefused(_WITHOUT_TOOLS, "tools")
        if any(message.calls or message.answers for message in prompt.messages or ()):
            raise PromptRefused(_WITHOUT_TOOLS, "messages")

    def wanted(
        self, prompt: Prompt, schema: dict[str, Any] | None, tokens: Sequence[int]
    ) -> Wanted | None:
        """What the answer must be held to; None: nothing. Raises PromptRefused."""
        tools = prompt.tools
        strict = tools is not None and any(one.strict for one in tools.callable)
        if schema is None and not (tools is not None and (tools.must or strict)):
            return None
        form = self._form_for(tools, schema) if tools is not None else None
        if tools is not None and tools.must:
            schema = None  # there will be no words to follow it
        thinking = self._thinking(tokens) if prompt.messages is not None else None
        return Wanted(thinking, tools, form, schema)

    def _form_for(self, tools: Tools, schema: dict[str, Any] | None) -> Form:
        if self._form is not None:
            self._hold(self._form, tools)
            return self._form
        form = "this model's form of calls cannot be enforced: "
        if tools.must:
            raise PromptRefused(f"{form}use 'tool_choice': 'auto'", "tool_choice")
        if schema is not None:
            raise PromptRefused(f"{form}ask for 'response_format' without tools", "response_format")
        raise PromptRefused(f"{form}leave out 'strict'", "tools")

    def _hold(self, form: Form, tools: Tools) -> None:
        """Raises PromptRefused for a promise that would be broken."""
        for one in tools.callable:
            if one.strict and not form.holds(one):
                raise PromptRefused(
                    f"this model writes arguments without JSON, so 'strict' of {one.name!r} cannot "
                    "be kept: give each parameter one type, and words no pattern, format or length",
                    "tools",
                )

    def reader(
        self, prompt: Prompt, stops: Sequence[str], tokens: Sequence[int], *, guided: bool
    ) -> Reader | None:
        """None: all that comes is words."""
        if prompt.messages is None:
            return None
        marks = self._marks(prompt.tools) if prompt.tools is not None else None
        machine = self._machines[marks is not None, guided]
        if machine is None:
            return None
        opened = self._thinks and self._is_opened(tokens)
        first = "reasoning" if opened else "normal"
        return Reader(machine, self._tokenizer.response_initial_state or first, marks, stops)

    def _marks(self, tools: Tools) -> Marks:
        parse, listed = self._tokenizer.tool_parser, offered(tools)
        return Marks(
            start=self._tokenizer.tool_call_start,
            end=self._tokenizer.tool_call_end,
            parse=lambda text: parse(text, listed),
            names=frozenset(one.name for one in tools.callable),
            parallel=tools.parallel,
        )

    def _thinking(self, tokens: Sequence[int]) -> Thinking | None:
        if not self._thinks:
            return None
        its = self._tokenizer
        return Thinking(its.think_start, its.think_end, self._is_opened(tokens))

    def _is_opened(self, tokens: Sequence[int]) -> bool:
        """The template has begun the model's thoughts: nothing but white space comes after."""
        mark = self._tokenizer.think_start_tokens
        tail = list(tokens[-len(mark) - _TAIL :])
        at = self._tokenizer.rfind_think_start(tail)
        return at >= 0 and not self._tokenizer.decode(tail[at + len(mark) :]).strip()

    def _machine(self, *, calls: bool, guided: bool) -> TextStateMachine | None:
        """None: there is nothing to tell apart."""
        edges: dict[str, list[tuple[str, str]]] = {"normal": [], "reasoning": [], "tool": []}
        its = self._tokenizer
        if self._thinks:
            edges["normal"].append((its.think_start, "reasoning"))
            edges["reasoning"].append((its.think_end, "normal"))
        begun = [(its.tool_call_start, "tool")]
        elsewhere = its.response_transitions
        if not any(to == "tool" for found in elsewhere.values() for _, to in found):
            edges["normal"] += begun
        if not guided:  # a model may break off its thoughts with a call; no grammar lets it
            edges["reasoning"] += begun
        if its.tool_call_end:
            edges["tool"].append((its.tool_call_end, "normal"))
        edges["normal"] += [(mark, "normal") for mark in its.structural_markers]
        for state, more in elsewhere.items():
            edges.setdefault(state, []).extend(more)
        if not calls:
            edges = {s: [e for e in found if e[1] != "tool"] for s, found in edges.items()}
            del edges["tool"]
        return TextStateMachine(edges) if any(edges.values()) else None
