"""How an answer's bytes are made: uvicorn's way with less work for each of them.

Header names and values are not searched for line breaks again: they are ours, or passed a parser
that allows none. The head leaves together with the first part of the body, in one system call.
"""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from .asgi import Message

_NO_BODY = (204, 304)


class Cycle(RequestResponseCycle):
    """One request and its answer."""

    _head = b""
    #: An answer of unknown length to HTTP/1.0, which knows no chunks: ends with the connection.
    _open_ended = False

    async def send(self, message: Message) -> None:  # type: ignore[override]
        """ASGI's; raises RuntimeError when the app breaks its order."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if kind == "http.response.body" and self.response_started and not self.response_complete:
            self._body(message.get("body", b""), message.get("more_body", False))
        elif kind == "http.response.start" and not self.response_started:
            self._start(message["status"], message.get("headers", ()))
        else:
            raise RuntimeError(f"{kind} was sent out of order")

    def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        lines = [STATUS_LINE[status]]
        closes = False
        for name, value in (*self.default_headers, *headers):
            if name == b"content-length":
                self.expected_content_length = int(value)
                self.chunked_encoding = False
            elif name == b"connection" and value.lower() == b"close":
                closes = True
            elif name == b"transfer-encoding":
                continue  # framing is made here
            lines.append(b"%b: %b\r\n" % (name, value))
        if self.chunked_encoding is None and status not in _NO_BODY:
            self._open_ended = self.scope["http_version"] == "1.0"
            self.chunked_encoding = not self._open_ended and self.scope["method"] != "HEAD"
            if self.chunked_encoding:
                lines.append(b"transfer-encoding: chunked\r\n")
        if closes or self._open_ended:
            self.keep_alive = False
        if not self.keep_alive and not closes:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        self._head = b"".join(lines)

    def _body(self, body: bytes, more: bool) -> None:
        data, self._head = self._head, b""
        if self.scope["method"] == "HEAD":
            self.expected_content_length = 0
        elif self.chunked_encoding:
            if body:
                data += b"%x\r\n%b\r\n" % (len(body), body)
            if not more:
                data += b"0\r\n\r\n"
        elif self._open_ended:
            data += body
        else:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0:
                raise RuntimeError("the answer is longer than its Content-Length")
            data += body
        if data:
            self.transport.write(data)
        if not more:
            self._end()

    def _end(self) -> None:
        if self.expected_content_length != 0:
            raise RuntimeError("the answer is shorter than its Content-Length")
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
