"""POST /v1/completions: what is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic import Field

from pippin_edge.errors import BadRequest

from ..engines.base import Prompt, Sampling
from .common import Body

#: The OpenAI API's own default for this endpoint.
DEFAULT_MAX_TOKENS = 16
#: Answers to one request, of all its prompts together; they share its place.
MAX_ANSWERS = 128

TokenIds = Annotated[list[int], Field(min_length=1)]


class CompletionRequest(Body):
    """One prompt or several: texts, or their token ids."""

    NEUTRAL: ClassVar[dict[str, tuple[Any, ...]]] = {
        **Body.NEUTRAL,
        "echo": (False,),
        "logprobs": (),
    }

    logprobs: int | None = Field(default=None, ge=0, le=5)
    echo: bool | None = None
    suffix: str | None = None
    max_tokens: int | None = Field(default=None, ge=0)
    prompt: str | TokenIds | Annotated[list[str | TokenIds], Field(min_length=1)]

    def limit(self) -> int | None:
        if self.max_tokens == 0 and not self.echo:
            raise BadRequest("must be 1 or more, unless 'echo' is true", param="max_tokens")
        return DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens

    def likeliest(self) -> int | None:
        return self.logprobs

    def sampling(self) -> Sampling:
        return replace(super().sampling(), echo=bool(self.echo))

    def prompts(self) -> tuple[Prompt, ...]:
        """Raises BadRequest for more than one request may ask for."""
        if self.suffix:
            raise BadRequest(
                "'suffix': this server continues texts and fills none in: leave it out, or write "
                "the model's own marks for it into the prompt",
                param="suffix",
                code="unsupported_parameter",
            )
        found = tuple(map(_prompt, self._listed()))
        if len(found) * (self.n or 1) > MAX_ANSWERS:
            raise BadRequest(
                f"'prompt': {len(found)} prompts with {self.n or 1} answers each are more than "
                f"{MAX_ANSWERS} answers: send several requests",
                param="prompt",
            )
        return found

    def _listed(self) -> Sequence[str | list[int]]:
        prompt = self.prompt
        if isinstance(prompt, str):
            return [prompt]
        # Either all are numbers, the tokens of one prompt, or none is.
        tokens = [one for one in prompt if isinstance(one, int)]
        return [tokens] if tokens else [one for one in prompt if not isinstance(one, int)]


def _prompt(told: str | list[int]) -> Prompt:
    return Prompt(text=told) if isinstance(told, str) else Prompt(tokens=tuple(told))
