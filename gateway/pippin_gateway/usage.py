"""Token counts, read from the bytes that pass by.

In JSON text a quote inside a string is escaped, so `"prompt_tokens":` can only be a field. It is
the answer's own unless a tool's argument object holds one, and arguments are strings.
"""

from __future__ import annotations

import re

_PROMPT = re.compile(rb'"prompt_tokens":\s*(\d{1,12})')
_COMPLETION = re.compile(rb'"completion_tokens":\s*(\d{1,12})')


def find(part: bytes) -> tuple[int, int] | None:
    """(prompt, completion) tokens of a whole JSON answer or event that tells them."""
    at = part.rfind(b'"prompt_tokens"')
    prompt = _PROMPT.match(part, at) if at >= 0 else None
    if prompt is None:
        return None
    at = part.rfind(b'"completion_tokens"')
    completion = _COMPLETION.match(part, at) if at >= 0 else None
    return int(prompt[1]), int(completion[1]) if completion else 0
