"""POST /v1/completions: what is asked."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from pippin_edge.errors import BadRequest

from ..engines.base import Prompt
from .common import Body

#: The OpenAI API's own default for this endpoint.
DEFAULT_MAX_TOKENS = 16

TokenIds = Annotated[list[int], Field(min_length=1)]


class CompletionRequest(Body):
    """One prompt: a text, its token ids, or a list with one of either."""

    NEUTRAL: ClassVar[dict[str, tuple[Any, ...]]] = {
        **Body.NEUTRAL,
        "echo": (False,),
        "suffix": ("",),
        "logprobs": (),
    }

    logprobs: int | None = Field(default=None, ge=0, le=5)
    prompt: str | TokenIds | Annotated[list[str | TokenIds], Field(min_length=1)]

    def limit(self) -> int | None:
        return self.max_tokens or DEFAULT_MAX_TOKENS

    def likeliest(self) -> int | None:
        return self.logprobs

    def one_prompt(self) -> Prompt:
        """Raises BadRequest for several."""
        prompt = self.prompt
        if isinstance(prompt, str):
            return Prompt(text=prompt)
        if isinstance(prompt[0], int):
            return Prompt(tokens=tuple(token for token in prompt if isinstance(token, int)))
        if len(prompt) > 1:
            raise BadRequest(
                "several prompts in one request are not supported by this server yet: "
                "send one request for each",
                param="prompt",
                code="unsupported_parameter",
            )
        only = prompt[0]
        return Prompt(text=only) if isinstance(only, str) else Prompt(tokens=tuple(only))
