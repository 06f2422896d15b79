"""Raw bytes against the assembled gateway: nothing that was not understood goes further."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pippin_edge import protocol, serving
from support.eventually import eventually
from support.gateway import Running, running_gateway
from support.upstreams import STREAM_HEAD, Turn, chunk, upstream

BODY = b'{"model":"qwen"}'
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


async def exchange(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """Send the parts, and read until the server closes or is silent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = b""
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
        async with asyncio.timeout(3):
            while data := await reader.read(65536):
                got += data
                if _whole(got):
                    break
    except (ConnectionError, BrokenPipeError):
        pass
    finally:
        writer.transport.abort()
    return got


def _whole(got: bytes) -> bool:
    head, _, body = got.removeprefix(CONTINUE).partition(b"\r\n\r\n")
    length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(length) and len(body) >= int(length[0].split(b":")[1])


def status(got: bytes) -> int:
    return int(got.split(b" ", 2)[1])


def envelope(got: bytes) -> str:
    head, _, body = got.partition(b"\r\n\r\n")
    assert b"application/json" in head and b"x-request-id: " in head
    code: str = json.loads(body)["error"]["code"]
    return code


def post(gateway: Running, *headers: bytes, body: bytes = BODY) -> bytes:
    lines = [
        b"POST /v1/chat/completions HTTP/1.1",
        b"host: x",
        b"authorization: Bearer " + gateway.key.key.encode(),
        b"content-type: application/json",
        *headers,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


CHUNKED_BODY = b"10\r\n" + BODY + b"\r\n0\r\n\r\n"

SMUGGLING = {
    "length and chunked": ((b"content-length: 16", b"transfer-encoding: chunked"), CHUNKED_BODY),
    "chunked and length": ((b"transfer-encoding: chunked", b"content-length: 16"), CHUNKED_BODY),
    "two lengths": ((b"content-length: 16", b"content-length: 17"), BODY),
    "equal lengths": ((b"content-length: 16", b"content-length: 16"), BODY),
    "negative length": ((b"content-length: -16",), BODY),
    "length in hex": ((b"content-length: 0x10",), BODY),
    "length with sign": ((b"content-length: +16",), BODY),
    "unknown coding": ((b"transfer-encoding: xchunked",), CHUNKED_BODY),
    "chunked not last": ((b"transfer-encoding: chunked, identity",), CHUNKED_BODY),
    "bad chunk size": ((b"transfer-encoding: chunked",), b"zz\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "huge chunk size": ((b"transfer-encoding: chunked",), b"f" * 20 + b"\r\n"),
    "space before colon": ((b"content-length : 16",), BODY),
    "folded header": ((b"x-a: b\r\n c: d", b"content-length: 16"), BODY),
    "nul in header": ((b"x-a: b\x00c", b"content-length: 16"), BODY),
    "bare line feed": ((b"x-a: b\nx-c: d", b"content-length: 16"), BODY),
}


@pytest.mark.parametrize("case", SMUGGLING)
async def test_an_ambiguous_request_is_a_400_and_the_connection_ends(
    gateway: Running, case: str
) -> None:
    headers, body = SMUGGLING[case]
    async with upstream() as replica:
        gateway.route(replica.port)
        smuggled = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
        got = await exchange(gateway.port, post(gateway, *headers, body=body + smuggled))
        assert not replica.requests
    assert (status(got), envelope(got)) == (400, "invalid_request")
    assert got.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in got


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 32,
        b"hello\r\n\r\n",
        b"GET /v1/models HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
)
async def test_what_is_not_http_for_us_is_a_400(gateway: Running, garbage: bytes) -> None:
    got = await exchange(gateway.port, garbage)
    assert (status(got), envelope(got)) == (400, "invalid_request")


@pytest.mark.parametrize(
    "head",
    [
        b"x-big: " + b"y" * 40_000,
        b"\r\n".join(b"x-%d: y" % n for n in range(200)),
        b"\r\n".join(b"x-%d: %s" % (n, b"y" * 1000) for n in range(100)),
    ],
)
async def test_headers_beyond_bounds_are_a_431(gateway: Running, head: bytes) -> None:
    got = await exchange(gateway.port, post(gateway, head, b"content-length: 16"))
    assert (status(got), envelope(got)) == (431, "headers_too_large")


async def test_a_header_that_never_ends_is_cut_off(gateway: Running) -> None:
    got = await exchange(gateway.port, b"GET / HTTP/1.1\r\nx-a: ", *[b"y" * 8192] * 10, pause=0.01)
    assert (status(got), envelope(got)) == (431, "headers_too_large")


async def test_a_long_url_is_cut_off(gateway: Running) -> None:
    got = await exchange(gateway.port, b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n")
    assert status(got) == 431


async def test_slow_headers_are_a_408_also_on_a_kept_connection(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol.Protocol, "header_seconds", 0.3)
    got = await exchange(gateway.port, b"GET /livez HTTP/1.1\r\nhost:")
    assert (status(got), envelope(got)) == (408, "request_timeout")

    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
    assert b"200 OK" in await reader.readuntil(b'ok"}')
    await asyncio.sleep(0.5)  # idle is allowed: only a begun request has to go on
    writer.write(b"GET /livez HT")
    async with asyncio.timeout(2):
        assert status(await reader.read()) == 408
    writer.close()


async def test_a_connection_that_says_nothing_is_closed(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol.Protocol, "header_seconds", 0.2)
    assert await exchange(gateway.port) == b""


async def test_a_kept_connection_that_is_idle_for_long_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "KEEP_ALIVE_SECONDS", 0.2)
    monkeypatch.setattr(serving, "SWEEP_SECONDS", 0.1)
    async with running_gateway(tmp_path) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        async with asyncio.timeout(3):
            assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
        writer.close()


async def test_a_slow_body_is_a_408(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, body_read_seconds=0.3) as gateway:
        got = await exchange(gateway.port, post(gateway, b"content-length: 16", body=b'{"mo'))
        assert (status(got), envelope(got)) == (408, "request_timeout")


async def test_a_key_is_asked_for_before_the_body_is_read(gateway: Running) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n"
    got = await exchange(gateway.port, head)
    assert (status(got), envelope(got)) == (401, "invalid_api_key")


async def test_expect_100_is_answered_and_an_upgrade_is_ignored(gateway: Running) -> None:
    async with upstream() as replica:
        gateway.route(replica.port)
        expecting = post(gateway, b"content-length: 16", b"expect: 100-continue", body=b"")
        got = await exchange(gateway.port, expecting, BODY, pause=0.1)
        assert got.startswith(CONTINUE + b"HTTP/1.1 200 OK")
        upgrade = (b"connection: upgrade", b"upgrade: h2c", b"content-length: 16")
        assert status(await exchange(gateway.port, post(gateway, *upgrade))) == 200
        assert "upgrade" not in replica.requests[-1].headers


async def test_a_body_without_end_is_cut_off(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "DISCARD_SECONDS", 0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(post(gateway, b"content-length: 99999999999", body=b"x" * 1000))
    async with asyncio.timeout(2):
        assert status(await reader.readuntil(b"\r\n\r\n")) == 413
        with contextlib.suppress(ConnectionError):
            await reader.read()
    writer.transport.abort()


async def test_an_upgrade_that_comes_in_pieces_ends_the_connection(gateway: Running) -> None:
    head = b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgr"
    got = await exchange(gateway.port, head, b"ade: h2c\r\n\r\n", pause=0.05)
    assert status(got) == 200 and b"connection: close" in got


async def test_pipelined_requests_are_answered_in_turn(gateway: Running) -> None:
    two = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\nGET /health HTTP/1.1\r\nhost: x\r\n\r\n"
    got = await exchange(gateway.port, two, pause=0.3)
    assert got.count(b"HTTP/1.1 200 OK") == 2


@pytest.mark.parametrize("size", [30_000, 33_000, 60_000])
async def test_a_large_body_may_come_with_its_headers_in_one_piece(
    gateway: Running, size: int
) -> None:
    """As from a fast network, when the server looks late: nothing of it is taken for headers."""
    async with upstream() as replica:
        gateway.route(replica.port)
        body = b'{"model":"qwen","user":"' + b"x" * size + b'"}'
        request = post(gateway, b"content-length: %d" % len(body), body=body)
        with socket.create_connection(("127.0.0.1", gateway.port)) as client:
            for _ in range(2):  # on a kept connection as well
                client.sendall(request)  # the loop does not run: all of it waits for one read
                async with asyncio.timeout(3):
                    got = await asyncio.to_thread(client.recv, 65536)
                assert status(got) == 200


async def test_a_client_that_never_reads_is_let_go(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol.Protocol, "write_stall_seconds", 0.3)

    async def flood(turn: Turn) -> None:
        await turn.send(STREAM_HEAD)
        while True:
            await turn.send(chunk(b"data: " + b"x" * 65536 + b"\n\n"))

    async with upstream(flood) as replica:
        gateway.route(replica.port)
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=1024)
        writer.write(post(gateway, b"content-length: 16"))
        await eventually(lambda: len(replica.requests) == 1, within=2)
        await eventually(lambda: replica.open == 0, within=5)
        writer.transport.abort()


async def test_a_client_that_reads_late_gets_every_event_in_its_order(gateway: Running) -> None:
    count, sent = 1000, 0

    async def numbers(turn: Turn) -> None:
        nonlocal sent
        await turn.send(STREAM_HEAD)
        for sent in range(count):
            await turn.send(chunk(b"data: {%06d}%s\n\n" % (sent, b" " * 16_000)))
        await turn.send(chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n")

    async with upstream(numbers) as replica:
        gateway.route(replica.port)
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=1024)
        writer.write(post(gateway, b"content-length: 30", body=b'{"model":"qwen","stream":true}'))
        await eventually(lambda: sent > 20, within=3)
        async with asyncio.timeout(10):
            got = b"".join([part async for part in _parts(reader)])
        writer.transport.abort()
    assert [int(at) for at in re.findall(rb"\{(\d{6})\}", got)] == list(range(count))


async def _parts(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """To the end of a chunked answer."""
    while data := await reader.read(65536):
        yield data
        if data.endswith(b"\r\n0\r\n\r\n"):
            return
