"""Chats in the shape that chat templates read: as OpenAI's, but arguments of calls are objects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..base import Call, Message, Tools

#: Characters of a call's id that Mistral's templates insist on.
_SHORT = 9


@dataclass(frozen=True, slots=True)
class Form:
    """What templates differ in. `short`: they refuse our ids; `parts`: what is said is a list of
    words and pictures; `mark`: the text of a picture where it is not."""

    short: bool = False
    parts: bool = False
    mark: str = ""


_PLAIN = Form()


def turns(
    messages: Sequence[Message], form: Form = _PLAIN, *, as_text: bool = False
) -> list[dict[str, Any]]:
    """`as_text`: for the few templates that join the arguments to other text."""
    called: dict[str, str] = {}
    found = []
    for message in messages:
        turn: dict[str, Any] = {"role": message.role, "content": _content(message, form)}
        if message.reasoning is not None:
            turn["reasoning_content"] = message.reasoning
        if message.calls:
            turn["tool_calls"] = [_called(call, as_text, form.short) for call in message.calls]
            called.update((call.id, call.name) for call in message.calls)
        if message.answers is not None:
            turn["tool_call_id"] = _id(message.answers, form.short)
            # Some templates tell the model which function answered by its name.
            turn["name"] = called.get(message.answers, "")
        found.append(turn)
    return found


def _content(message: Message, form: Form) -> str | list[dict[str, str]]:
    parts = message.parts or (message.content,)
    if form.parts:
        return [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
            for part in parts
        ]
    return "\n".join(part if isinstance(part, str) else form.mark for part in parts)


def _called(call: Call, as_text: bool, short: bool) -> dict[str, Any]:
    arguments = call.arguments if as_text else json.loads(call.arguments)
    function = {"name": call.name, "arguments": arguments}
    return {"id": _id(call.id, short), "type": "function", "function": function}


def _id(call: str, short: bool) -> str:
    if not short or (len(call) == _SHORT and call.isalnum()):
        return call
    return hashlib.sha256(call.encode()).hexdigest()[:_SHORT]


def offered(tools: Tools | None) -> list[dict[str, Any]] | None:
    """What the template, and the family's parser, are told of the functions."""
    if tools is None:
        return None
    found = []
    for function in tools.functions:
        told: dict[str, Any] = {"name": function.name}
        if function.description is not None:
            told["description"] = function.description
        found.append({"type": "function", "function": {**told, "parameters": function.parameters}})
    return found
