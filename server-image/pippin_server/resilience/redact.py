"""Words for callers and status: no file system paths, no credentials, nothing endless."""

from __future__ import annotations

import re

MAX_LENGTH = 500

_RULES = (
    # user:password@ in addresses
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^\s/@]+@"), r"\1***@"),
    # query strings carry signatures and tokens
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://[^\s?]+)\?\S+"), r"\1?***"),
    # keys and tokens by their form: ours, Hugging Face's, OpenAI's, JWTs
    (re.compile(r"\b(pp_[a-z2-7]{12}_|hf_|sk-)[A-Za-z0-9_-]{8,}"), r"\1***"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), "***"),
    (re.compile(r"(?i)\b(bearer|token|password|secret|api[-_]key)(\s*[=:]\s*|\s+)\S+"), r"\1\2***"),
    # absolute paths keep their last part: it says which file
    (re.compile(r"(?<![\w:/.])/(?:[\w.@+-]+/)+([\w.@+-]+)"), r"\1"),
)


def redact(text: str) -> str:
    """The same words without what must not leave the process, on one line."""
    text = " ".join(text.split())
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 1] + "…"
