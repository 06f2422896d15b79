"""Answers and their chunks as bytes; what repeats in a stream is serialised once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import orjson

from pippin_edge import sse

from ..engines.base import Delta, Score

#: Of one token: the chosen one, then the likeliest.
Scores = tuple[Score, ...]
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


@dataclass(frozen=True, slots=True)
class Choice:
    """An answer, why it ended, and the scores of its tokens; None: none were asked for."""

    text: str
    finish: str
    scores: Sequence[Scores] | None = None


def whole(head: Head, choices: Sequence[Choice], usage: Usage) -> bytes:
    """An answer in one piece."""
    chat = head.kind == "chat"
    listed = []
    for index, choice in enumerate(choices):
        said = {"role": "assistant", "content": choice.text, "refusal": None}
        listed.append(
            {
                "index": index,
                "logprobs": _logprobs(head.kind, choice.scores, 0),
                "finish_reason": choice.finish,
                **({"message": said} if chat else {"text": choice.text}),
            }
        )
    return orjson.dumps({**head.payload(chunk=False), "choices": listed, "usage": usage.payload()})


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
        "top_logprobs": [{top.text: top.logprob for top in one[1:]} for one in scores],
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
        if delta.scores:
            return self._scored(delta)
        return self._before + orjson.dumps(delta.text) + self._after if delta.text else b""

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
