"""Answers and their chunks as bytes; what repeats in a stream is serialised once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import orjson

from pippin_edge import sse

Kind = Literal["chat", "completion"]


@dataclass(slots=True)
class Usage:
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def payload(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


@dataclass(frozen=True, slots=True)
class Head:
    """What every piece of one answer begins with."""

    kind: Kind
    number: str
    created: int
    model: str
    request_id: str

    def payload(self, *, chunk: bool) -> dict[str, object]:
        chat = self.kind == "chat"
        name = "chat.completion" if chat else "text_completion"
        return {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{self.number}",
            "object": f"{name}.chunk" if chat and chunk else name,
            "created": self.created,
            "model": self.model,
            "request_id": self.request_id,
        }


def whole(head: Head, choices: Sequence[tuple[str, str]], usage: Usage) -> bytes:
    """An answer in one piece; `choices`: text and why it ended."""
    chat = head.kind == "chat"
    listed = []
    for index, (text, finish) in enumerate(choices):
        said = {"role": "assistant", "content": text, "refusal": None}
        what = {"message": said} if chat else {"text": text}
        listed.append({"index": index, "logprobs": None, "finish_reason": finish, **what})
    return orjson.dumps({**head.payload(chunk=False), "choices": listed, "usage": usage.payload()})


class Chunks:
    """The events of one choice of a stream."""

    def __init__(self, head: Head, index: int = 0, *, with_usage: bool) -> None:
        common = orjson.dumps(head.payload(chunk=True))[:-1]
        chat = head.kind == "chat"
        opening = b'"delta":{"content":' if chat else b'"text":'
        closing = b"}" if chat else b""
        usage = b',"usage":null' if with_usage else b""
        self._chat = chat
        self._head = common
        self._before = b"data: " + common + b',"choices":[{"index":%d,' % index + opening
        self._after = closing + b',"logprobs":null,"finish_reason":null}]' + usage + b"}\n\n"
        self._choice = b"data: " + common + b',"choices":[{"index":%d,' % index
        self._end = b"]" + usage + b"}\n\n"

    def role(self) -> bytes:
        """A chat begins by saying who speaks; a completion does not."""
        if not self._chat:
            return b""
        role = b'"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}'
        return self._choice + role + self._end

    def text(self, text: str) -> bytes:
        return self._before + orjson.dumps(text) + self._after

    def finish(self, reason: str) -> bytes:
        body = b'"delta":{}' if self._chat else b'"text":""'
        tail = b',"logprobs":null,"finish_reason":"' + reason.encode() + b'"}'
        return self._choice + body + tail + self._end

    def usage(self, usage: Usage) -> bytes:
        tail = b',"choices":[],"usage":' + orjson.dumps(usage.payload()) + b"}"
        return sse.event(self._head + tail)
