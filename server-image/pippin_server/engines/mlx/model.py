"""From a directory of weights to a model in memory, and from a prompt to its tokens."""

from __future__ import annotations

import gc
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from jinja2 import TemplateError
from mlx_lm.utils import load as load_weights

from ..base import Prompt, PromptRefused, Sampling
from .args import Args
from .dialect import Dialect
from .guide import Guide, Guides
from .loading import accelerated, arrays, as_load_failures, cast
from .reading import Reader
from .shape import UNKNOWN_CONTEXT
from .turns import offered, turns


@dataclass(frozen=True, slots=True)
class Model:
    """Loaded and ready to be owned by a thread."""

    weights: Any
    tokenizer: Any
    context_length: int
    vocabulary: int
    bytes: int
    details: dict[str, str]


def load(path: Path, args: Args) -> Model:
    """Blocks for as long as the disk takes. Raises LoadFailed."""
    on_cpu = mx.default_device() == mx.Device(mx.cpu)
    details = accelerated(args) if on_cpu else {}
    with as_load_failures():
        weights, tokenizer, config = load_weights(str(path), return_config=True)
        cast(weights, config, args, on_cpu)
        mx.eval(weights.parameters())
    gc.collect()
    gc.freeze()  # nothing of the model is looked at by the collector again
    held = arrays(weights)
    return Model(
        weights=weights,
        tokenizer=tokenizer,
        context_length=int(config.get("max_position_embeddings") or UNKNOWN_CONTEXT),
        vocabulary=int(config.get("vocab_size") or len(tokenizer)),
        bytes=sum(array.nbytes for array in held),
        details={**details, "dtype": str(held[0].dtype) if held else ""},
    )


class Tokens:
    """Prompts to tokens, in one thread at a time."""

    def __init__(self, model: Model) -> None:
        self._tokenizer = model.tokenizer
        self._vocabulary = model.vocabulary
        self._dialect = Dialect(model.tokenizer)
        self._guides = Guides(
            model.tokenizer, model.vocabulary, sorted(model.tokenizer.eos_token_ids)
        )

    def guide(self, prompt: Prompt, sampling: Sampling, tokens: Sequence[int]) -> Guide | None:
        """None: the answer is free. Raises PromptRefused."""
        schema = None if sampling.schema is None else json.loads(sampling.schema)
        wanted = self._dialect.wanted(prompt, schema, tokens)
        return None if wanted is None else self._guides.make(wanted)

    def reader(
        self, prompt: Prompt, sampling: Sampling, tokens: Sequence[int], guide: Guide | None
    ) -> Reader | None:
        """None: all that comes is words."""
        return self._dialect.reader(prompt, sampling.stop, tokens, guided=guide is not None)

    def check_bias(self, biases: Sequence[tuple[int, float]]) -> None:
        """Raises PromptRefused."""
        for token, _ in biases:
            self._check(token, "logit_bias")

    def encode(self, prompt: Prompt) -> list[int]:
        """Raises PromptRefused."""
        if prompt.tokens is not None:
            return self._checked(list(prompt.tokens))
        if prompt.text is not None:
            tokens = list(self._tokenizer.encode(prompt.text))
        else:
            tokens = self._chat(prompt)
        if not tokens:
            raise PromptRefused("the prompt is empty: say something", "prompt")
        return tokens

    def text(self, prompt: Prompt, tokens: Sequence[int]) -> str:
        """The prompt as it comes back."""
        if prompt.text is not None:
            return prompt.text
        text: str = self._tokenizer.decode(list(tokens))
        return text

    def _checked(self, tokens: list[int]) -> list[int]:
        for token in tokens:
            self._check(token, "prompt")
        return tokens

    def _check(self, token: int, param: str) -> None:
        if not 0 <= token < self._vocabulary:
            raise PromptRefused(
                f"token {token} is not in this model's vocabulary of {self._vocabulary}", param
            )

    def _chat(self, prompt: Prompt) -> list[int]:
        if not self._tokenizer.has_chat_template:
            raise PromptRefused("this model has no chat template: use /v1/completions", "messages")
        self._dialect.check(prompt)
        return self._templated(prompt)

    def _templated(self, prompt: Prompt, *, as_text: bool = False) -> list[int]:
        told = {} if prompt.tools is None else {"tools": offered(prompt.tools)}
        messages = prompt.messages or ()
        said = turns(messages, as_text=as_text, short=self._dialect.short_ids)
        try:
            return [*self._tokenizer.apply_chat_template(said, add_generation_prompt=True, **told)]
        except (TemplateError, TypeError) as error:
            if isinstance(error, TypeError) and not as_text:
                return self._templated(prompt, as_text=True)
            raise PromptRefused(
                f"the model's chat template refuses these messages: {error}", "messages"
            ) from error
