"""So many bytes of forms in memory at one time, and no more, however many send them."""

from __future__ import annotations

from .asgi import App, Message, Receive, Scope, Send, header
from .errors import Overloaded

#: Forms of the largest size that fit in at one time.
FORMS = 4


class BodyRoom:
    """503 for the form that would take all of them together beyond `most_bytes`; each counts from
    its first byte until it is answered. Other bodies are small, and are not counted."""

    def __init__(self, app: App, most_bytes: int) -> None:
        self.app = app
        self.most_bytes = most_bytes
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = header(scope["headers"], b"content-type") if scope["type"] == "http" else None
        if kind is None or not kind.startswith(b"multipart/"):
            return await self.app(scope, receive, send)
        mine = 0

        async def counted() -> Message:
            nonlocal mine
            message = await receive()
            size = len(message.get("body", b""))
            if self.held + size > self.most_bytes:
                raise Overloaded(
                    "too many files are being worked on at this moment: try again", retry_after=2
                )
            mine += size
            self.held += size
            return message

        try:
            await self.app(scope, counted, send)
        finally:
            self.held -= mine
