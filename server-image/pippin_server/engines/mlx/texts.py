"""Texts to the token ids that an embedding model reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from ..base import Input, LoadFailed, PromptRefused
from ..batching import Tokens, fitting


class Texts:
    """In one thread at a time. `limit`: tokens that the model reads of one text."""

    def __init__(self, path: Path, *, limit: int, vocabulary: int) -> None:
        """Raises LoadFailed."""
        try:
            self._tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        except Exception as error:  # the library raises nothing narrower
            raise LoadFailed("ModelCorrupted", f"tokenizer.json: {error}") from error
        # Some files cut texts off at the length that a model was trained with: we refuse them.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._limit = limit
        self._vocabulary = vocabulary

    def encode(self, inputs: Sequence[Input]) -> Sequence[Tokens]:
        """Texts with the special tokens of the model, ids as they are. Raises EngineError."""
        words = [text for text in inputs if isinstance(text, str)]
        encoded = iter(self._tokenizer.encode_batch(words))
        tokens = [next(encoded).ids if isinstance(one, str) else one for one in inputs]
        for index, one in enumerate(inputs):
            if not isinstance(one, str):
                self._check(index, one)
        return fitting(tokens, self._limit)

    def _check(self, index: int, tokens: Tokens) -> None:
        for token in tokens:
            if token >= self._vocabulary:
                raise PromptRefused(
                    f"'input': token {token} of text {index} is not in this model's vocabulary "
                    f"of {self._vocabulary}",
                    "input",
                )
