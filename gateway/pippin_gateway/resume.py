"""A stream whose replica died goes on at another, where the request has one answer.

The other makes the answer again from its beginning; what the client already has is compared and
left out. So nothing is missing and nothing comes twice, whatever the engine and its tokenizer are,
or the stream ends in an error. Pure. See docs/decisions/0017-streams-are-made-again.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from pippin_edge import sse

from .routing.retry import Failure
from .upstream.failure import UpstreamFailure

#: Characters of an answer that is remembered; a longer one is not continued.
MOST = 256 * 1024
#: Bytes of events that are kept as they came, before their text is taken out.
RAW = 32 * 1024

_TEXTS = ("content", "reasoning_content", "reasoning", "text")
#: What a choice has beside what it says. (Scores of tokens are not among it: they are no text.)
_FRAME = frozenset({"role", "index", "finish_reason", "stop_reason", "token_ids"})


class Told:
    """What a client has of an answer: its texts, by choice and field."""

    def __init__(self) -> None:
        self._raw: list[bytes] = []
        self._size = self._characters = 0
        #: Whether it can be continued: texts are all that it has.
        self.usable = True
        #: `id` and `created`, as all of a stream's events have them.
        self.common: dict[str, Any] = {}
        self.texts: dict[tuple[int, str], str] = {}
        self.ended: set[int] = set()

    def add(self, part: bytes) -> None:
        """Whole events, on their way to the client."""
        if self.usable:
            self._raw.append(part)
            self._size += len(part)
            if self._size > RAW:
                self.read()

    def read(self) -> None:
        """Take the texts out of what came."""
        raw, self._raw, self._size = b"".join(self._raw), [], 0
        pieces: dict[tuple[int, str], list[str]] = {}
        try:
            for event in _events(raw):
                if event is not None:
                    self._note(event, pieces)
        except UpstreamFailure:
            self.usable = False
        for name, found in pieces.items():
            text = "".join(found)
            self.texts[name] = self.texts.get(name, "") + text
            self._characters += len(text)
        self.usable = self.usable and self._characters <= MOST

    def _note(self, event: dict[str, Any], pieces: dict[tuple[int, str], list[str]]) -> None:
        self.common = self.common or {k: event[k] for k in ("id", "created") if k in event}
        for choice in event.get("choices") or ():
            index, said = choice.get("index", 0), _said(choice)
            for field, value in said.items():
                if field in _TEXTS:
                    pieces.setdefault((index, field), []).append(value or "")
                elif value and field not in _FRAME:
                    self.usable = False
            self.usable = self.usable and not choice.get("logprobs")
            if choice.get("finish_reason"):
                self.ended.add(index)


class Continuation:
    """Another replica's events without what the client already has."""

    def __init__(self, told: Told) -> None:
        told.read()
        self._common = told.common
        self._spoke = {index for index, _ in told.texts}
        self._ended = set(told.ended)
        self._left = {
            name: text for name, text in told.texts.items() if text and name[0] not in self._ended
        }

    def rest(self, part: bytes) -> bytes:
        """Of whole events. Raises UpstreamFailure when it is another answer."""
        return b"".join(map(self._event, _events(part)))

    def _event(self, event: dict[str, Any] | None) -> bytes:
        if event is None:
            if self._left:
                raise _diverged()
            return sse.DONE
        had_choices = bool(event.get("choices"))
        choices = [one for one in event.get("choices") or () if self._is_new(one)]
        if had_choices and not choices:
            return b""
        return sse.event(orjson.dumps(event | self._common | {"choices": choices}))

    def _is_new(self, choice: dict[str, Any]) -> bool:
        """Whether anything of it is; what is not is taken out of it."""
        index, said = choice.get("index", 0), _said(choice)
        if index in self._ended:
            return False
        if index in self._spoke:
            said.pop("role", None)
        for field in _TEXTS:
            if said.get(field):
                said[field] = self._new_text((index, field), said[field])
        ends = bool(choice.get("finish_reason"))
        if ends and any(name[0] == index for name in self._left):
            raise _diverged()
        return (
            ends
            or "role" in said
            or any(value for field, value in said.items() if field not in _FRAME)
        )

    def _new_text(self, name: tuple[int, str], text: str) -> str:
        left = self._left.get(name)
        if left is None:
            return text
        shared = min(len(text), len(left))
        if text[:shared] != left[:shared]:
            raise _diverged()
        if shared == len(left):
            del self._left[name]
        else:
            self._left[name] = left[shared:]
        return text[shared:]


def _said(choice: dict[str, Any]) -> dict[str, Any]:
    """What a choice adds: a chat's delta, or a completion's text."""
    delta = choice.get("delta")
    return delta if isinstance(delta, dict) else choice


def _events(part: bytes) -> Iterator[dict[str, Any] | None]:
    """Each as an object; None: [DONE]. Comments are nobody's. Raises UpstreamFailure."""
    for line in part.replace(b"\r\n", b"\n").split(b"\n"):
        if not line.startswith(b"data:"):
            continue
        data = line[len(b"data:") :].strip()
        if data == b"[DONE]":
            yield None
            continue
        try:
            event = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise UpstreamFailure(Failure.PROTOCOL, "an event is no JSON") from error
        if not isinstance(event, dict):
            raise UpstreamFailure(Failure.PROTOCOL, "an event is no object")
        yield event


def _diverged() -> UpstreamFailure:
    return UpstreamFailure(Failure.DIVERGED, "another replica's answer is not the same")
