"""Token counts: asked for where the client did not, and read from the bytes that pass by.

In JSON text a quote inside a string is escaped, so `"prompt_tokens":` can only be a field. It is
the answer's own unless a tool's argument object holds one, and arguments are strings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from pippin_contract.wire import USAGE_HEADER

_PROMPT, _COMPLETION, _CACHED = b'"prompt_tokens"', b'"completion_tokens"', b'"cached_tokens"'
_INPUT, _OUTPUT = b'"input_tokens"', b'"output_tokens"'
_NUMBER = re.compile(rb":\s*(\d{1,12})")
_HEADER = USAGE_HEADER.encode()
_SAID = re.compile(rb"prompt=(\d{1,12}), completion=(\d{1,12})")
_NO_CHOICES = re.compile(rb'"choices":\s*\[\]')
_NONE_YET = re.compile(rb',\s*"usage":\s*null')
_ASKED = b',"stream_options":{"include_usage":true}}'


def ask(body: bytes, asked: dict[str, Any]) -> tuple[bytes, bool]:
    """The body of a stream with its usage asked for, and whether the client had not asked.

    What is wrong with `stream_options` the replica says.
    """
    options = asked.get("stream_options")
    if asked.get("stream") is not True or not isinstance(options, dict | None):
        return body, False
    if "stream_options" not in asked:
        return body.rstrip()[:-1] + _ASKED, True
    if options and options.get("include_usage"):
        return body, False
    more = {**(options or {}), "include_usage": True}
    return orjson.dumps({**asked, "stream_options": more}), True


class Told(NamedTuple):
    """Tokens as a replica counted them; `cached`: of the prompt, and found in its cache."""

    prompt: int
    completion: int
    cached: int = 0


def find(part: bytes) -> Told | None:
    """In a whole JSON answer or event that tells them."""
    prompt = _last(_PROMPT, part)
    if prompt is None:
        return None
    return Told(prompt, _last(_COMPLETION, part) or 0, _last(_CACHED, part) or 0)


def said(headers: Mapping[bytes, bytes]) -> Told | None:
    """By an answer that need not be JSON: a transcript, pictures."""
    value = headers.get(_HEADER)
    found = _SAID.fullmatch(value) if value is not None else None
    return Told(int(found[1]), int(found[2])) if found else None


def find_transcript(part: bytes) -> Told | None:
    """In the last events of a transcript, which has the other names for them."""
    heard = _last(_INPUT, part)
    return None if heard is None else Told(heard, _last(_OUTPUT, part) or 0)


def _last(name: bytes, part: bytes) -> int | None:
    """The number of the last field of that name."""
    at = part.rfind(name)
    found = _NUMBER.match(part, at + len(name)) if at >= 0 else None
    return int(found[1]) if found else None


def hide(part: bytes) -> bytes:
    """Whole events without what a client gets that asked for its usage: the event that tells
    nothing else, and the word in every event before that there is none yet."""
    if b'"usage"' not in part:
        return part
    part = part.replace(b',"usage":null', b"")  # as our own servers and OpenAI write it
    part = _NONE_YET.sub(b"", part)
    at = part.rfind(b'"prompt_tokens"')
    end = part.find(b"\n\n", at) + 2
    if at < 0 or end < 2:
        return part
    begin = part.rfind(b"\n\n", 0, at) + 2 if b"\n\n" in part[:at] else 0
    return part[:begin] + part[end:] if _NO_CHOICES.search(part, begin, end) else part
