"""Server-sent events as OpenAI sends them."""

from __future__ import annotations

CONTENT_TYPE = b"text/event-stream; charset=utf-8"
#: Only after a complete answer.
DONE = b"data: [DONE]\n\n"


def event(payload: bytes) -> bytes:
    """One event; the payload is JSON on one line."""
    return b"data: " + payload + b"\n\n"


def comment(text: str) -> bytes:
    """A line that clients skip: keeps the connection alive and people informed."""
    return b": " + text.replace("\r", " ").replace("\n", " ").encode() + b"\n\n"
