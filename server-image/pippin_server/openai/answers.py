"""Answers and their chunks as bytes; what repeats in a stream is serialised once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import orjson

from pippin_edge import sse

from ..engines.base import Call, Delta, Score

#: Of one token: the chosen one, then the likeliest.
Scores = tuple[Score, ...]
Kind = Literal["chat", "completion"]


@dataclass(slots=True)
class Usage:
    prompt_tokens: int = 0
    completion_tokens: int = 0
    #: Of the prompt's, those that the engine had read before.
    cached_tokens: int = 0

    def payload(self) -> dict[str, object]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }


@dataclass(frozen=True, slots=True)
class Head:
    """What every piece of one answer begins with."""

    kind: Kind
    number: str
    created: int
    model: str
    request_id: str

    def call_id(self, choice: int, call: int) -> str:
        """Of a call to which the model gave none; another in every answer."""
        return f"call_{self.number}{choice:x}{call:x}"

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


@dataclass(frozen=True, slots=True)
class Choice:
    """An answer, why it ended, and the scores of its tokens; None: none were asked for."""

    text: str
    finish: str
    scores: Sequence[Scores] | None = None
    reasoning: str = ""
    calls: Sequence[Call] = ()


def whole(head: Head, choices: Sequence[Choice], usage: Usage) -> bytes:
    """An answer in one piece."""
    chat = head.kind == "chat"
    listed = []
    for index, choice in enumerate(choices):
        said = {"message": _message(head, index, choice)} if chat else {"text": choice.text}
        listed.append(
            {
                "index": index,
                "logprobs": _logprobs(head.kind, choice.scores, 0),
                "finish_reason": choice.finish,
                **said,
            }
        )
    return orjson.dumps({**head.payload(chunk=False), "choices": listed, "usage": usage.payload()})


def _message(head: Head, index: int, choice: Choice) -> dict[str, object]:
    said: dict[str, object] = {"role": "assistant", "content": choice.text, "refusal": None}
    if choice.reasoning:
        said["reasoning_content"] = choice.reasoning
    if choice.calls:
        said["content"] = choice.text or None
        said["tool_calls"] = [
            _call(call, call.id or head.call_id(index, number), call.arguments)
            for number, call in enumerate(choice.calls)
        ]
    return said


def _call(call: Call, call_id: str, arguments: str) -> dict[str, object]:
    function = {"name": call.name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def _logprobs(kind: Kind, scores: Sequence[Scores] | None, offset: int) -> object:
    """In the form of the endpoint; `offset`: of the first token in the answer's text."""
    if scores is None:
        return None
    if kind == "chat":
        content = [{**_told(one[0]), "top_logprobs": [*map(_told, one[1:])]} for one in scores]
        return {"content": content, "refusal": None}
    offsets = [offset]
    for one in scores:
        offsets.append(offsets[-1] + len(one[0].text))
    return {
        "tokens": [one[0].text for one in scores],
        "token_logprobs": [one[0].logprob for one in scores],
        "top_logprobs": [
            None if one[0].logprob is None else {top.text: top.logprob for top in one[1:]}
            for one in scores
        ],
        "text_offset": offsets[:-1],
    }


def _told(score: Score) -> dict[str, object]:
    return {"token": score.text, "logprob": score.logprob, "bytes": list(score.raw)}


class Chunks:
    """The events of one choice of a stream."""

    def __init__(self, head: Head, index: int = 0, *, with_usage: bool) -> None:
        common = orjson.dumps(head.payload(chunk=True))[:-1]
        chat = head.kind == "chat"
        opening = b'"delta":{"content":' if chat else b'"text":'
        closing = b"}" if chat else b""
        usage = b',"usage":null' if with_usage else b""
        self._chat = chat
        self._kind = head.kind
        self._offset = 0
        self._index = index
        self._calls = 0
        self._of = head
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

    def delta(self, delta: Delta) -> bytes:
        """Nothing for a step that shows nothing."""
        if delta.reasoning or delta.calls:
            return self._thought(delta) + self._text(delta) + self._called(delta)
        return self._text(delta)

    def _text(self, delta: Delta) -> bytes:
        if delta.scores:
            return self._scored(delta)
        return self._before + orjson.dumps(delta.text) + self._after if delta.text else b""

    def _thought(self, delta: Delta) -> bytes:
        return self._event({"reasoning_content": delta.reasoning}) if delta.reasoning else b""

    def _called(self, delta: Delta) -> bytes:
        """Of each call who is called, then with what: clients join the pieces."""
        events = b""
        for call in delta.calls:
            number, self._calls = self._calls, self._calls + 1
            call_id = call.id or self._of.call_id(self._index, number)
            begun = {"index": number, **_call(call, call_id, "")}
            rest = {"index": number, "function": {"arguments": call.arguments}}
            events += self._event({"tool_calls": [begun]}) + self._event({"tool_calls": [rest]})
        return events

    def _event(self, delta: dict[str, object]) -> bytes:
        tail = b',"logprobs":null,"finish_reason":null}'
        return self._choice + b'"delta":' + orjson.dumps(delta) + tail + self._end

    def _scored(self, delta: Delta) -> bytes:
        logprobs = orjson.dumps(_logprobs(self._kind, delta.scores, self._offset))
        self._offset += sum(len(one[0].text) for one in delta.scores)
        after = self._after.replace(b'"logprobs":null', b'"logprobs":' + logprobs, 1)
        return self._before + orjson.dumps(delta.text) + after

    def finish(self, reason: str) -> bytes:
        body = b'"delta":{}' if self._chat else b'"text":""'
        tail = b',"logprobs":null,"finish_reason":"' + reason.encode() + b'"}'
        return self._choice + body + tail + self._end

    def usage(self, usage: Usage) -> bytes:
        tail = b',"choices":[],"usage":' + orjson.dumps(usage.payload()) + b"}"
        return sse.event(self._head + tail)
