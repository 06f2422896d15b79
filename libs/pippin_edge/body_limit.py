"""No body larger than agreed gets in, whether its length was announced or not, nor a late one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import cast

from .asgi import App, Message, Receive, Scope, Send, Sender, state
from .errors import ApiError, PayloadTooLarge, RequestTimeout, UnsupportedMedia

#: Seconds for the whole body.
READ_SECONDS = 60.0

# Nobody knows what will still come of a late body.
_CLOSE = (b"connection", b"close")


class BodyLimit:
    """413 by Content-Length before a byte is read, else by counting; 415 for compressed bodies;
    408 when the body is not whole in `read_seconds`.

    `max_media_bytes` holds for multipart bodies (audio, images), `max_bytes` for all others.
    """

    def __init__(
        self, app: App, max_bytes: int, max_media_bytes: int, read_seconds: float = READ_SECONDS
    ) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.max_media_bytes = max_media_bytes
        self.read_seconds = read_seconds

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            return self.app(scope, receive, send)
        headers = dict(scope["headers"])
        encoding = headers.get(b"content-encoding")
        if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
            raise UnsupportedMedia(
                "compressed request bodies are not accepted: send the body as it is, "
                "without Content-Encoding"
            )
        kind = headers.get(b"content-type", b"")
        cap = self.max_media_bytes if kind.startswith(b"multipart/") else self.max_bytes
        length = headers.get(b"content-length")
        if length is not None:
            if int(length) > cap:  # the HTTP parser let digits only pass
                raise _too_large(cap)
            connection = state(scope).get("connection")
            if connection is not None and connection.body_complete:
                return self.app(scope, receive, send)  # it came with the headers
        guard = _Guard(receive, send, cap, self.read_seconds)
        return self.app(scope, guard.receive, guard)


def _too_large(cap: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the request body is larger than {cap} bytes: send less")


class _Guard:
    """One request's body on its way in: counted, and under a deadline until it is whole. Stands
    where `send` stood."""

    __slots__ = ("_cap", "_deadline", "_receive", "_refusal", "_seen", "_send", "_whole")

    def __init__(self, receive: Receive, send: Send, cap: int, seconds: float) -> None:
        self._receive = receive
        self._send = cast(Sender, send)
        self._cap = cap
        self._deadline = asyncio.get_running_loop().time() + seconds
        self._seen = 0
        self._whole = False
        self._refusal: ApiError | None = None

    async def receive(self) -> Message:
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError as error:
            self._refusal = RequestTimeout(
                "the request body did not arrive in time: send it faster", extra_headers=[_CLOSE]
            )
            raise self._refusal from error
        self._seen += len(message.get("body", b""))
        if self._seen > self._cap:
            self._refusal = _too_large(self._cap)
            raise self._refusal
        self._whole = not message.get("more_body")
        return message

    def __call__(self, message: Message) -> Awaitable[None]:
        # A framework below may have caught the refusal and made its own answer of it.
        if self._refusal is not None:
            raise self._refusal
        return self._send(message)

    def part(self, body: bytes) -> None:
        """As Sender has it: of an answer, so nothing was refused."""
        self._send.part(body)
