"""The small pieces of the edge, each by what it promises."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import threading
import time

import orjson
import pytest
import structlog
from prometheus_client import CollectorRegistry

from pippin_edge import errors, json_body, logs, metrics, sse
from pippin_edge.access_log import LineWriter


def test_the_envelope_names_message_type_param_code_and_request() -> None:
    error = errors.BadRequest("say more", param="model")
    assert orjson.loads(errors.body(error, "r-1")) == {
        "error": {
            "message": "say more",
            "type": "invalid_request_error",
            "param": "model",
            "code": "invalid_request",
        },
        "request_id": "r-1",
    }


def test_every_error_has_a_status_of_its_table_and_a_code() -> None:
    table = {kind.__name__: (kind.status, kind.code) for kind in errors.ApiError.__subclasses__()}
    assert table["RateLimited"] == (429, "rate_limited")
    assert len({code for _, code in table.values()}) == len(table)
    assert all(400 <= status < 600 for status, _ in table.values())


@pytest.mark.parametrize(("seconds", "told"), [(0.01, b"1"), (1.0, b"1"), (1.2, b"2"), (60, b"60")])
def test_retry_after_is_rounded_up(seconds: float, told: bytes) -> None:
    error = errors.RateLimited("slow down", retry_after=seconds)
    assert dict(errors.headers(error))[b"retry-after"] == told


def test_events_and_comments_end_in_an_empty_line() -> None:
    assert sse.event(b"{}") == b"data: {}\n\n"
    assert sse.comment("loading\n42%") == b": loading 42%\n\n"


@pytest.mark.parametrize("body", [b"", b"[]", b'"x"', b"nul", b'{"a":Infinity}', b'{"a":"\xff"}'])
def test_what_is_no_json_object_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(errors.BadRequest):
        json_body.parse(body)


async def test_a_body_in_parts_is_put_together_and_a_disconnect_ends_it() -> None:
    messages = [
        {"type": "http.request", "body": b"ab", "more_body": True},
        {"type": "http.request", "body": b"c", "more_body": False},
        {"type": "http.request", "body": b"ab", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> dict[str, object]:
        return messages.pop(0)

    assert await json_body.read(receive) == b"abc"
    with pytest.raises(errors.ClientGone):
        await json_body.read(receive)


def test_label_sets_beyond_the_bound_are_counted_together() -> None:
    registry = CollectorRegistry()
    counted = metrics.counter(registry, "things", "Things.", ("name",))
    counted.limit = 2
    for name in "abcd":
        counted(name).inc()
    shown = {
        sample.labels["name"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "things_total"
    }
    assert shown == {"a": 1, "b": 1, "other": 2}
    assert len(counted._children) <= 3


async def test_lines_reach_the_sink_by_the_timer_and_at_the_end() -> None:
    got: list[bytes] = []
    writer = LineWriter(got.append, every=0.01)
    writer(b"one\n")
    writer(b"two\n")
    assert got == []
    await writer.close()
    assert got == [b"one\ntwo\n"]


async def test_lines_that_never_stop_are_written_by_the_timer_only() -> None:
    got: list[bytes] = []
    writer = LineWriter(got.append, every=0.05)
    began = time.monotonic()
    async with asyncio.timeout(20):
        while len(got) < 4:
            writer(b"line\n")
            await asyncio.sleep(0)
    assert time.monotonic() - began >= 4 * writer.every
    await writer.close()
    assert sum(map(len, got)) % len(b"line\n") == writer.dropped == 0


async def test_lines_that_take_half_of_the_room_do_not_wait() -> None:
    got: list[bytes] = []
    writer = LineWriter(got.append, every=3600.0, max_bytes=10)
    writer(b"12345\n")
    await writer.close()
    assert got == [b"12345\n"]


async def test_a_sink_that_hangs_drops_lines_and_holds_up_nobody() -> None:
    release, got = threading.Event(), list[bytes]()

    def stuck(chunk: bytes) -> None:
        release.wait(10)
        got.append(chunk)

    writer = LineWriter(stuck, every=0.0, max_bytes=10)
    writer(b"12345678\n")
    await asyncio.sleep(0.05)
    for _ in range(5):
        writer(b"12345678\n")
    assert writer.dropped == 5
    release.set()
    await writer.close()
    assert got == [b"12345678\n"]


def test_our_events_and_the_libraries_words_are_json_lines() -> None:
    stream = io.StringIO()
    root = logging.getLogger()
    before = root.handlers[:], root.level, structlog.get_config()
    try:
        logs.configure("info", stream)
        structlog.get_logger("pippin.x").info("thing.done", n=1)
        structlog.get_logger("pippin.x").debug("thing.unseen")
        logging.getLogger("library").warning("was %s", "here", extra={"field": 2})
        try:
            raise ValueError("inner")
        except ValueError:
            structlog.get_logger("pippin.x").exception("thing.failed")
    finally:
        root.handlers[:], level, config = before
        root.setLevel(level)
        structlog.configure(**config)
    first, second, third = map(json.loads, stream.getvalue().splitlines())
    assert (first["event"], first["n"], first["level"], first["logger"]) == (
        "thing.done",
        1,
        "info",
        "pippin.x",
    )
    assert (second["event"], second["field"]) == ("was here", 2)
    assert "inner" in third["exception"]
