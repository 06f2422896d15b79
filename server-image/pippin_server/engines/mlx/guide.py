"""Constrained decoding: which tokens keep an answer on its way to what was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer

from ..base import PromptRefused

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

    def make(self, schema: str) -> Guide:
        """For answers in JSON by this schema. Raises PromptRefused."""
        if len(schema) > _MAX_SCHEMA:
            raise _refused(f"the schema has more than {_MAX_SCHEMA} characters: make it smaller")
        if self._tables is None:
            fast = getattr(self._tokenizer, "_tokenizer", self._tokenizer)
            size = max(self._vocabulary, len(fast))
            try:
                self._tables = from_tokenizer(fast, n_vocab=size, eos_token=self._eos)
            except ValueError as error:
                raise _refused("this model's tokenizer cannot be guided: leave it out") from error
        try:
            grammar = LLMatcher.grammar_from_json_schema(schema, overrides=_TERSE)
        except ValueError as error:
            raise _refused(f"the schema cannot be followed: {error}") from error
        matcher = LLMatcher(self._tables, grammar, log_level=0)
        if matcher.is_error():
            raise _refused(f"the schema cannot be followed: {matcher.get_error()}")
        return Guide(matcher)


def _refused(message: str) -> PromptRefused:
    return PromptRefused(message, "response_format")
