"""The turns of a chat, as they are sent."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from pydantic import Discriminator, Field, Tag

from pippin_edge.errors import BadRequest

from ..engines.base import Call, Message, Shown
from .common import Strict
from .shown import ImagePart, TextPart, part_tag

#: Calls in one turn.
_MAX_CALLS = 128


#: Errors speak of the one kind that was meant; the tags are no part of a field's name.
Part = Annotated[
    Annotated[TextPart, Tag("text-part")] | Annotated[ImagePart, Tag("image-part")],
    Discriminator(
        part_tag,
        custom_error_type="part",
        custom_error_message="must be of the type 'text' or 'image_url'",
    ),
]
Content = Annotated[
    Annotated[str, Tag("content-text")]
    | Annotated[list[Part], Field(min_length=1), Tag("content-parts")],
    Discriminator(lambda told: "content-parts" if isinstance(told, list) else "content-text"),
]


class CalledFunction(Strict):
    name: str = Field(min_length=1, max_length=256)
    arguments: str


class ToolCall(Strict):
    """`index` is what clients keep of a stream."""

    id: str = Field(min_length=1, max_length=256)
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None

    def plain(self, where: str) -> Call:
        """Templates want the arguments as an object, so they must be one."""
        arguments = self.function.arguments
        try:
            found = orjson.loads(arguments or "{}")
        except orjson.JSONDecodeError:
            found = None
        if not isinstance(found, dict):
            raise _wrong(f"{where}.function.arguments", "must be a JSON object, in a string")
        return Call(name=self.function.name, arguments=arguments or "{}", id=self.id)


class ChatMessage(Strict):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = None
    name: str | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=_MAX_CALLS)] | None = None
    tool_call_id: str | None = Field(default=None, min_length=1, max_length=256)
    reasoning_content: str | None = None
    # Clients send answers back as they got them, with the fields that held nothing.
    refusal: None = None
    function_call: None = None
    audio: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None

    def plain(self, where: str) -> Message:
        """Raises BadRequest for fields that are not this role's; `where`: how errors call it."""
        self._check(where)
        calls = self.tool_calls or []
        return Message(
            # Chat templates know the older name only.
            role="system" if self.role == "developer" else self.role,
            content=self._text(),
            parts=self._parts(where),
            reasoning=self.reasoning_content or None,
            calls=tuple(call.plain(f"{where}.tool_calls.{n}") for n, call in enumerate(calls)),
            answers=self.tool_call_id,
        )

    def _text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content if isinstance(part, TextPart))
        return self.content or ""

    def _parts(self, where: str) -> tuple[str | Shown, ...]:
        """None where all are words. Raises BadRequest."""
        listed = self.content if isinstance(self.content, list) else []
        if not any(isinstance(part, ImagePart) for part in listed):
            return ()
        return tuple(part.plain(f"{where}.content.{n}") for n, part in enumerate(listed))

    def _check(self, where: str) -> None:
        if self.content is None and not self.tool_calls:
            raise _wrong(f"{where}.content", "must be given")
        if self.role == "tool" and self.tool_call_id is None:
            raise _wrong(f"{where}.tool_call_id", "must be given: the id of the call it answers")
        for number, part in enumerate(self.content if isinstance(self.content, list) else ()):
            if isinstance(part, ImagePart) and self.role != "user":
                raise _wrong(f"{where}.content.{number}", "pictures are for the role 'user' only")
        owners = {"tool_calls": "assistant", "reasoning_content": "assistant"}
        for name, role in {**owners, "tool_call_id": "tool"}.items():
            if getattr(self, name) and self.role != role:
                raise _wrong(f"{where}.{name}", f"is for the role '{role}' only")


def _wrong(param: str, what: str) -> BadRequest:
    return BadRequest(f"'{param}': {what}", param=param, code="invalid_value")
