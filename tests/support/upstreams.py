"""Server Pods made of raw sockets, that do what they are told: answer, hang, break, lie."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "qwen",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello there"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
    }
).encode()

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
END = b"0\r\n\r\n"


@dataclass
class Request:
    """What a replica got."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Turn:
    """One request on one connection, and the hands to answer it."""

    request: Request
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    #: Of this connection, from 1.
    number: int

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()

    def reset(self) -> None:
        """End by RST, as a killed process with unread data does."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()

    async def hang(self) -> None:
        """Until the gateway leaves."""
        while await self.reader.read(4096):
            pass


Script = Callable[[Turn], Awaitable[None]]


@dataclass
class Upstream:
    """A listening replica and what happened to it."""

    port: int
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    open: int = 0


def answer(body: bytes = ANSWER, status: str = "200 OK", kind: str = "application/json") -> bytes:
    """A whole answer."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def event(content: str | None, **more: object) -> bytes:
    """One event, in one chunk."""
    delta = {} if content is None else {"content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": "stop" if content is None else None}
    payload = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "qwen",
        "choices": [choice],
        **more,
    }
    return chunk(b"data: " + json.dumps(payload).encode() + b"\n\n")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


DONE = chunk(b"data: [DONE]\n\n")


async def good(turn: Turn) -> None:
    """What a healthy replica does: a whole answer, or a stream of three words."""
    if b'"stream":true' not in turn.request.body.replace(b" ", b""):
        return await turn.send(answer())
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    await turn.send(STREAM_HEAD, event("one "), event("two "), event("three"))
    await turn.send(event(None, usage=usage), DONE, END)


@contextlib.asynccontextmanager
async def upstream(
    script: Script = good, port: int = 0, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Upstream]:
    """A replica that plays `script` for every request."""
    tasks: set[asyncio.Task[None]] = set()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        replica.connections += 1
        replica.open += 1
        number = 0
        try:
            while (request := await _read(reader)) is not None:
                number += 1
                replica.requests.append(request)
                await script(Turn(request, reader, writer, number))
                if writer.is_closing():
                    return
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            replica.open -= 1
            tasks.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(accepted, "127.0.0.1", port, ssl=tls)
    replica = Upstream(port=server.sockets[0].getsockname()[1])
    try:
        yield replica
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    line, *rest = head.rstrip().split("\r\n")
    pairs = (field.partition(":") for field in rest)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(line, headers, body)
