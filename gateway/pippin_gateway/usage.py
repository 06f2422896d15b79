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
    if b'"prompt_tokens"' not in part:
        return None
    prompt, completion = _PROMPT.search(part), _COMPLETION.search(part)
    if prompt is None:
        return None
    return int(prompt[1]), int(completion[1]) if completion else 0
