"""Forms are read as they come, strictly, and the same however they are cut into pieces."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pippin_edge import multipart
from pippin_edge.body_room import BodyRoom
from pippin_edge.errors import BadRequest, ClientGone, Overloaded, UnsupportedMedia
from pippin_edge.multipart import MAX_FIELD_BYTES, MAX_HEAD_BYTES, MAX_PARTS, Form, Reader

NAMED = 'Content-Disposition: form-data; name="{}"'


def part(name: str, content: str = "x", more: str = "") -> str:
    return f"--b\r\n{NAMED.format(name)}{more}\r\n\r\n{content}\r\n"


def read(body: bytes, *cuts: int) -> dict[str, tuple[str | None, bytes]]:
    reader = Reader(b"b")
    for begin, end in zip((0, *cuts), (*cuts, len(body)), strict=True):
        reader.feed(body[begin:end])
    whole, parts = reader.end()
    form = Form(b"", whole, parts)
    return {one.name: (one.filename, form.content(one)) for one in parts}


async def receive_from(*messages: dict[str, Any]) -> multipart.Form:
    left = list(messages)

    async def receive() -> dict[str, Any]:
        return left.pop(0)

    scope = {"type": "http", "headers": [(b"content-type", b"multipart/form-data; boundary=b")]}
    return await multipart.read(scope, receive)


TRICKY = b"\r\n--\r\n--a\r\n-\r\n--\r\r\n"
WHOLE = (
    part("model", "echo").encode()
    + b'--b\r\nContent-Type: audio/wav\r\nContent-Disposition: form-data; name="file"; '
    + 'filename="häß \\" .wav"\r\n\r\n'.encode()
    + TRICKY
    + b"\r\n"
    + part("prompt", "").encode()
    + b"--b--\r\n"
)
FOUND = {"model": (None, b"echo"), "file": ('häß " .wav', TRICKY), "prompt": (None, b"")}


@given(st.sets(st.integers(0, len(WHOLE)), max_size=12))
def test_the_pieces_in_which_a_form_comes_make_no_difference(cuts: set[int]) -> None:
    assert read(WHOLE, *sorted(cuts)) == FOUND


def test_a_form_byte_by_byte_is_the_same() -> None:
    assert read(WHOLE, *range(1, len(WHOLE))) == FOUND


def test_what_clients_write_is_read() -> None:
    request = httpx.Request(
        "POST",
        "http://x",
        data={"model": "ä", "list[]": ["1", "2"]},
        files={"file": ('ü"\r\n.wav', b"\0\r\n\xff", "audio/wav")},
    )
    kind = request.headers["content-type"].partition("boundary=")[2].encode()
    reader = Reader(kind)
    reader.feed(request.read())
    body, parts = reader.end()
    form = Form(b"", body, parts)
    assert [(one.name, form.content(one)) for one in parts] == [
        ("model", "ä".encode()),
        ("list[]", b"1"),
        ("list[]", b"2"),
        ("file", b"\0\r\n\xff"),
    ]
    assert parts[3].filename == "ü%22%0D%0A.wav"


def test_a_name_in_the_older_way_of_writing_is_read() -> None:
    more = "; filename=plain.wav; filename*=UTF-8''na%C3%AFve.wav"
    assert read(part("file", more=more).encode() + b"--b--") == {"file": ("naïve.wav", b"x")}


LONG = "a" * MAX_HEAD_BYTES
WRONG = [
    (b"", "ends before"),
    (b"preamble\r\n--b\r\n", "does not begin"),
    (b"--c\r\n", "does not begin"),
    (b"--b", "ends before"),
    (b"--b\r\n", "ends before"),
    (b"--bxy", "followed by something else"),
    (part("a").encode(), "ends before"),
    (part("a").encode() + b"--bb\r\n", "followed by something else"),
    (part("a").encode() + b"--b--\r\nmore", "goes on"),
    (b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--", "without 'Content-Disposition"),
    (b'--b\r\nContent-Disposition: file; name="a"\r\n\r\nx\r\n--b--', "without"),
    (part("").encode() + b"--b--", "without"),
    (part("a", more=f"\r\nX: {LONG}").encode(), "bytes of headers"),
    (f"--b\r\nX: {LONG}{LONG}".encode(), "bytes of headers"),
    (b'--b\r\nContent-Disposition: form-data; name="\xff"\r\n\r\n', "not UTF-8"),
    (part("a", more="\r\nContent-Transfer-Encoding: base64").encode(), "encoded"),
    (part("a").encode() * (MAX_PARTS + 1), f"more than {MAX_PARTS} parts"),
    (part("a", "x" * (MAX_FIELD_BYTES + 99)).encode(), "'a' is longer"),
    (f"--b\r\n{NAMED.format('a')}\r\n\r\n{'x' * (MAX_FIELD_BYTES + 99)}".encode(), "'a' is longer"),
]


@pytest.mark.parametrize(("body", "words"), WRONG, ids=range(len(WRONG)))
def test_a_form_that_is_not_one_is_refused_in_words(body: bytes, words: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read(body)
    assert words in refused.value.message


def test_a_file_may_be_longer_than_a_field() -> None:
    content = "x" * (2 * MAX_FIELD_BYTES)
    found = read(part("a", content, '; filename=""').encode() + b"--b--")
    assert found == {"a": ("", content.encode())}


def test_a_field_that_is_needed_is_there_once_and_says_something() -> None:
    def form(*parts: str) -> Form:
        reader = Reader(b"b")
        reader.feed("".join(parts).encode() + b"--b--")
        return Form(b"", *reader.end())

    assert form(part("model", "m")).only("model").name == "model"
    for wrong in (form(), form(part("model", "")), form(part("model"), part("model"))):
        with pytest.raises(BadRequest) as refused:
            wrong.only("model")
        assert refused.value.param == "model"


async def test_a_form_that_breaks_off_has_nobody_to_answer() -> None:
    with pytest.raises(ClientGone):
        await receive_from(
            {"type": "http.request", "body": b"--b", "more_body": True}, {"type": "http.disconnect"}
        )


async def test_a_wrong_form_is_refused_before_it_has_come_whole() -> None:
    with pytest.raises(BadRequest):
        await receive_from({"type": "http.request", "body": b"nonsense", "more_body": True})


@pytest.mark.parametrize(
    "kind", [b"application/json", b"multipart/form-data", b"multipart/mixed; boundary=b", b""]
)
async def test_what_is_no_form_is_refused_by_its_type(kind: bytes) -> None:
    async def receive() -> dict[str, Any]:
        raise AssertionError("nothing is read of it")

    with pytest.raises(UnsupportedMedia):
        await multipart.read({"type": "http", "headers": [(b"content-type", kind)]}, receive)


async def test_forms_of_all_callers_share_a_room_and_leave_it() -> None:
    inside, go = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        inside.set()
        await go.wait()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"x" * 60}

    room = BodyRoom(app, 100)
    scope = {"type": "http", "headers": [(b"content-type", b"multipart/form-data; boundary=b")]}
    first = asyncio.create_task(room(scope, receive, receive))
    await inside.wait()
    with pytest.raises(Overloaded):
        await room(scope, receive, receive)
    go.set()
    await first
    assert room.held == 0
    await room(scope, receive, receive)
