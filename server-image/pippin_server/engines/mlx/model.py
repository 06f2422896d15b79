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
from mlx_lm.utils import load_config, load_model, load_tokenizer

from ..base import Message, Prompt, PromptRefused, Sampling
from .args import Args
from .dialect import Dialect
from .guide import Guide, Guides
from .loading import accelerated, arrays, as_load_failures, cast
from .reading import Reader
from .shape import UNKNOWN_CONTEXT
from .turns import Form, offered, turns
from .vision import LLAMA
from .vision import loading as vision
from .vision.eyes import Eyes
from .vision.gallery import Look

#: What a template is tried with, to see in which form it reads what is said.
_TRIED = "tried"


@dataclass(frozen=True, slots=True)
class Model:
    """Loaded and ready to be owned by a thread. `eyes` None: it is shown no pictures, for the
    reason `blind`."""

    weights: Any
    tokenizer: Any
    context_length: int
    vocabulary: int
    bytes: int
    details: dict[str, str]
    eyes: Eyes | None = None
    blind: str = ""


def load(path: Path, args: Args) -> Model:
    """Blocks for as long as the disk takes. Raises LoadFailed."""
    on_cpu = mx.default_device() == mx.Device(mx.cpu)
    details = accelerated(args) if on_cpu else {}
    with as_load_failures():
        weights, tokenizer, config = _loaded(path)
        eyes = vision.load(path, config, tokenizer)
        nets = [(weights, config)] if eyes is None else [(weights, config), (eyes.net, {})]
        for net, told in nets:
            cast(net, told, args, on_cpu)
            mx.eval(net.parameters())
    gc.collect()
    gc.freeze()  # nothing of the model is looked at by the collector again
    held = [array for net, _ in nets for array in arrays(net)]
    text = {**config, **(LLAMA if eyes else {}), **(config.get("text_config") or {})}
    return Model(
        weights=weights,
        tokenizer=tokenizer,
        context_length=int(text.get("max_position_embeddings") or UNKNOWN_CONTEXT),
        vocabulary=int(text.get("vocab_size") or len(tokenizer)),
        bytes=sum(array.nbytes for array in held),
        details={**details, "dtype": str(held[0].dtype) if held else ""},
        eyes=eyes,
        blind=vision.blindness(config),
    )


def _loaded(path: Path) -> tuple[Any, Any, dict[str, Any]]:
    """The language model, its tokenizer and the config."""
    told = vision.template(path)
    config = load_config(path)
    family = vision.family_of(config)
    if family is None:
        weights, tokenizer, config = load_weights(
            str(path), tokenizer_config=told, return_config=True
        )
        return weights, tokenizer, config
    weights, config = load_model(path, get_model_classes=lambda config: family.text)
    tokenizer = load_tokenizer(path, told, eos_token_ids=config.get("eos_token_id"))
    return weights, tokenizer, config


class Tokens:
    """Prompts to tokens, in one thread at a time."""

    def __init__(self, model: Model) -> None:
        self._tokenizer = model.tokenizer
        self._vocabulary = model.vocabulary
        self._dialect = Dialect(model.tokenizer)
        self._eyes = model.eyes
        self._blind = model.blind
        self._form = Form(
            short=self._dialect.short_ids,
            parts=self._reads_parts(),
            mark=model.eyes.mark if model.eyes else "",
        )
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

    def check_pictures(self, prompt: Prompt) -> None:
        """Raises PromptRefused."""
        pictures = prompt.pictures
        if pictures and self._eyes is None:
            raise PromptRefused(f"'{pictures[0].where}': {self._blind}", pictures[0].where)

    def encode(self, prompt: Prompt, looks: Sequence[Look] = ()) -> list[int]:
        """`looks`: at the prompt's pictures. Raises PromptRefused."""
        if prompt.tokens is not None:
            return self._checked(list(prompt.tokens))
        if prompt.text is not None:
            tokens = list(self._tokenizer.encode(prompt.text))
        else:
            tokens = self._chat(prompt, looks)
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

    def _chat(self, prompt: Prompt, looks: Sequence[Look]) -> list[int]:
        if not self._tokenizer.has_chat_template:
            raise PromptRefused("this model has no chat template: use /v1/completions", "messages")
        self._dialect.check(prompt)
        if not looks:
            return [*self._templated(prompt, tokenize=True)]
        text = self._with_marks(self._templated(prompt, tokenize=False), looks)
        return self._numbered(self._tokenizer.encode(text, add_special_tokens=False), looks)

    def _with_marks(self, text: str, looks: Sequence[Look]) -> str:
        """As many marks as each picture has tokens, where the template has left one. Raises
        PromptRefused: nobody could say which of too many are pictures."""
        assert self._eyes is not None
        before, *pieces = text.split(self._eyes.mark)
        if len(pieces) != len(looks):
            raise PromptRefused(
                f"the words hold this model's own mark of a picture ({self._eyes.mark}), or its "
                "chat template leaves pictures out: write it another way",
                "messages",
            )
        pairs = zip(looks, pieces, strict=True)
        return before + "".join(self._eyes.text(look.plan) + piece for look, piece in pairs)

    def _numbered(self, tokens: list[int], looks: Sequence[Look]) -> list[int]:
        """Each mark becomes the number of its place in its picture."""
        assert self._eyes is not None
        numbers = [number for look in looks for number in look.numbers]
        places = [at for at, token in enumerate(tokens) if token == self._eyes.token]
        if len(places) != len(numbers) or places[-1] == len(tokens) - 1:
            raise PromptRefused("the model's chat template has no place for pictures", "messages")
        for at, number in zip(places, numbers, strict=True):
            tokens[at] = number
        return tokens

    def _reads_parts(self) -> bool:
        """Some templates go through what is said as a list, and lose a text without a word."""
        if not self._tokenizer.has_chat_template:
            return False
        tried = Prompt(messages=(Message("user", _TRIED),))
        try:
            return _TRIED not in str(self._rendered(tried, Form(), tokenize=False))
        except Exception:  # a template of somebody's, and it may refuse this chat for any reason
            return False

    def _templated(self, prompt: Prompt, *, tokenize: bool) -> Any:
        """Tokens or text. Raises PromptRefused."""
        try:
            try:
                return self._rendered(prompt, self._form, tokenize=tokenize)
            except TypeError:
                return self._rendered(prompt, self._form, tokenize=tokenize, as_text=True)
        except (TemplateError, TypeError) as error:
            raise PromptRefused(
                f"the model's chat template refuses these messages: {error}", "messages"
            ) from error

    def _rendered(
        self, prompt: Prompt, form: Form, *, tokenize: bool, as_text: bool = False
    ) -> Any:
        told: dict[str, Any] = {} if tokenize else {"tokenize": False}
        if prompt.tools is not None:
            told["tools"] = offered(prompt.tools)
        said = turns(prompt.messages or (), form, as_text=as_text)
        return self._tokenizer.apply_chat_template(said, add_generation_prompt=True, **told)
