"""POST /v1/chat/completions: what is asked."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from pippin_edge.errors import BadRequest

from ..engines.base import Prompt
from .common import Body, Strict
from .messages import ChatMessage
from .shown import counted
from .tools import MAX_TOOLS, Choice, Tool, offered

#: Messages of one request.
_MAX_MESSAGES = 4096


class JsonSchema(BaseModel):
    """Open to fields that say nothing of the answer, as OpenAI's is."""

    model_config = ConfigDict(strict=True, frozen=True)

    name: str
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema")
    strict: bool | None = None


class ResponseFormat(Strict):
    """A schema is enforced whether it is `strict` or not."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    def schema_text(self) -> str | None:
        if self.type == "text":
            return None
        if self.type == "json_object":
            return '{"type": "object"}'
        if self.json_schema is None:
            raise BadRequest("'json_schema' must be given", param="response_format.json_schema")
        return orjson.dumps(self.json_schema.schema_).decode()


class ChatRequest(Body):
    """`max_completion_tokens` is the newer name of `max_tokens`."""

    NEUTRAL: ClassVar[dict[str, tuple[Any, ...]]] = {
        **Body.NEUTRAL,
        "tools": ([],),
        "tool_choice": ("none", "auto"),
        "functions": ([],),
        "function_call": ("none",),
        "parallel_tool_calls": (True, False),
        "response_format": ({"type": "text"},),
        "logprobs": (False,),
        "top_logprobs": (0,),
        "modalities": (["text"],),
        "audio": (),
        "prediction": (),
        "reasoning_effort": (),
        "verbosity": (),
        "web_search_options": (),
        "store": (False,),
        "service_tier": ("auto", "default"),
    }
    IGNORED: ClassVar[frozenset[str]] = Body.IGNORED | {"prompt_cache_key"}

    messages: list[ChatMessage] = Field(min_length=1, max_length=_MAX_MESSAGES)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    tools: list[Tool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: Choice | None = None
    parallel_tool_calls: bool | None = None

    def limit(self) -> int | None:
        if self.max_completion_tokens is not None and self.max_tokens is not None:
            raise BadRequest(
                "give 'max_completion_tokens' or 'max_tokens', not both", param="max_tokens"
            )
        return self.max_completion_tokens or self.max_tokens

    def likeliest(self) -> int | None:
        if self.logprobs:
            return self.top_logprobs or 0
        if self.top_logprobs:
            raise BadRequest("'top_logprobs' needs 'logprobs': true", param="top_logprobs")
        return None

    def schema_text(self) -> str | None:
        return None if self.response_format is None else self.response_format.schema_text()

    def prompt(self) -> Prompt:
        turns = enumerate(self.messages)
        messages = tuple(message.plain(f"messages.{number}") for number, message in turns)
        counted(messages)
        return Prompt(
            messages=messages,
            tools=offered(self.tools, self.tool_choice, self.parallel_tool_calls),
        )
