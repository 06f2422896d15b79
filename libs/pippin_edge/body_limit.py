"""No body larger than agreed gets in, whether its length was announced or not."""

from __future__ import annotations

from .asgi import App, Message, Receive, Scope, Send, header
from .errors import PayloadTooLarge, UnsupportedMedia

# The rest of a refused body is not worth reading: the connection ends with the answer.
_CLOSE = (b"connection", b"close")


class BodyLimit:
    """413 by Content-Length before a byte is read, else by counting; 415 for compressed bodies.

    `max_media_bytes` holds for multipart bodies (audio, images), `max_bytes` for all others.
    """

    def __init__(self, app: App, max_bytes: int, max_media_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.max_media_bytes = max_media_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            return await self.app(scope, receive, send)
        headers = scope["headers"]
        encoding = header(headers, b"content-encoding")
        if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
            raise UnsupportedMedia(
                "compressed request bodies are not accepted: send the body as it is, "
                "without Content-Encoding",
                extra_headers=[_CLOSE],
            )
        kind = header(headers, b"content-type") or b""
        cap = self.max_media_bytes if kind.startswith(b"multipart/") else self.max_bytes
        length = header(headers, b"content-length")
        if length is None:
            return await self.app(scope, _counted(receive, cap), send)
        if int(length) > cap:  # the HTTP parser let digits only pass, and holds the body to it
            raise _too_large(cap)
        await self.app(scope, receive, send)


def _too_large(cap: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"the request body is larger than {cap} bytes: send less", extra_headers=[_CLOSE]
    )


def _counted(receive: Receive, cap: int) -> Receive:
    seen = 0

    async def counting() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > cap:
            raise _too_large(cap)
        return message

    return counting
