"""Constrained decoding: which tokens keep an answer on its way to what was asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer

from ..base import PromptRefused
from .grammar import Wanted, grammar

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

Mask = numpy.ndarray[Any, numpy.dtype[numpy.bool_]]

#: Small models fill optional white space without end.
_TERSE: JsonCompileOptions = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}
#: A larger schema would hold up whoever waits for the tokenizer.
_MAX_SCHEMA = 64 * 1024


class Guide:
    """The way of one answer; belongs to the engine's thread once it is made."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def saw(self, token: int) -> None:
        """A token that was chosen; after the end nothing counts."""
        if not self._matcher.is_stopped():
            self._matcher.consume_token(token)

    def allowed(self) -> Mask:
        """Which tokens may come next; once the answer is whole, only the one that ends it."""
        found: Mask = numpy.frombuffer(self._matcher.compute_logit_bias(), dtype=numpy.uint8) != 0
        return found


class Guides:
    """Makes guides for one tokenizer, whose tables take a second to build: on the first request
    that needs them, in the thread that turns prompts into tokens."""

    def __init__(self, tokenizer: Any, vocabulary: int, eos: list[int]) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._eos = eos
        self._tables: LLTokenizer | None = None
        self._marks: dict[str, int] = {}

    def make(self, wanted: Wanted) -> Guide:
        """For answers that are what is wanted. Raises PromptRefused."""
        field = "response_format" if wanted.tools is None else "tools"
        schemas = list(_schemas(wanted))
        if sum(len(text) for _, text, _ in schemas) > _MAX_SCHEMA:
            raise PromptRefused(
                f"its schemas have more than {_MAX_SCHEMA} characters: make them smaller", field
            )
        tables = self._made_tables(field)
        if wanted.tools is None and wanted.thinking is None:
            ((param, text, strict),) = schemas
            return _guide(tables, _from_schema(text, strict=strict), param)
        for param, text, strict in schemas:  # alone, so that the one at fault is named
            _guide(tables, _from_schema(text, strict=strict), param)
        lark = grammar(wanted, self._spell, dict(_TERSE))
        return _guide(tables, LLMatcher.grammar_from_lark(lark), field)

    def _made_tables(self, param: str) -> LLTokenizer:
        if self._tables is None:
            fast = getattr(self._tokenizer, "_tokenizer", self._tokenizer)
            size = max(self._vocabulary, len(fast))
            try:
                self._tables = from_tokenizer(fast, n_vocab=size, eos_token=self._eos)
            except ValueError as error:
                raise PromptRefused(
                    "this model's tokenizer cannot be guided: leave it out", param
                ) from error
            self._marks = _no_text(self._tokenizer, self._tables)
        return self._tables

    def _spell(self, text: str) -> list[str]:
        """For a grammar, in which tokens that are no text stand by their numbers."""
        marks = self._marks
        longest = sorted(marks, key=len, reverse=True)
        parts = re.split(f"({'|'.join(map(re.escape, longest))})", text) if longest else [text]
        return [f"<[{marks[p]}]>" if p in marks else json.dumps(p) for p in parts if p]


def _no_text(tokenizer: Any, tables: LLTokenizer) -> dict[str, int]:
    """Tokens that the tables know by their numbers only."""
    added: dict[int, Any] = tokenizer.added_tokens_decoder
    return {str(token): n for n, token in added.items() if tables.is_special_token(n)}


def _schemas(wanted: Wanted) -> Iterator[tuple[str, str, bool]]:
    """The request's field, the schema as text, and whether all of it must be understood."""
    if wanted.schema is not None:
        yield "response_format", json.dumps(wanted.schema), True
    if wanted.tools is not None:
        for number, function in enumerate(wanted.tools.functions):
            param = f"tools.{number}.function.parameters"
            yield param, json.dumps(function.parameters), function.strict


def _from_schema(text: str, *, strict: bool) -> str:
    return LLMatcher.grammar_from_json_schema(text, overrides={**_TERSE, "lenient": not strict})


def _guide(tables: LLTokenizer, made: str, param: str) -> Guide:
    matcher = LLMatcher(tables, made, log_level=0)
    if matcher.is_error():
        raise PromptRefused(f"the schema cannot be followed: {matcher.get_error()}", param)
    return Guide(matcher)
