"""Replicas that break in every way there is: what the client is told, and who is asked next."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator

import httpx
import openai
import pytest

from support.eventually import eventually
from support.gateway import Running, free_port, model_object
from support.upstreams import (
    ANSWER,
    DONE,
    END,
    STREAM_HEAD,
    Script,
    Turn,
    answer,
    chunk,
    event,
    good,
    upstream,
)

PATH = "/v1/chat/completions"
ASK = {"model": "qwen", "messages": []}
STREAM = {**ASK, "stream": True}


async def ask(gateway: Running, body: dict[str, object] = ASK) -> httpx.Response:
    async with gateway.client() as http:
        return await http.post(PATH, json=body)


def code(response: httpx.Response) -> tuple[int, str]:
    body = response.json()
    assert body["request_id"] == response.headers["x-request-id"]
    return response.status_code, body["error"]["code"]


async def reset_at_once(turn: Turn) -> None:
    turn.reset()


async def hang(turn: Turn) -> None:
    await turn.hang()


async def garbage(turn: Turn) -> None:
    await turn.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")


async def draining(turn: Turn) -> None:
    await turn.send(answer(b'{"error":{"code":"overloaded"}}', "503 Service Unavailable"))


async def refuses_the_token(turn: Turn) -> None:
    await turn.send(answer(b'{"error":{"message":"no"}}', "401 Unauthorized"))


async def html_error(turn: Turn) -> None:
    await turn.send(answer(b"<h1>oops</h1>", "500 Internal Server Error", "text/html"))


async def redirect(turn: Turn) -> None:
    await turn.send(answer(b"{}", "302 Found"))


async def short_body(turn: Turn) -> None:
    await turn.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n")
    await turn.send(b"\r\n{}")
    turn.writer.close()


async def both_lengths(turn: Turn) -> None:
    await turn.send(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    )


async def endless_headers(turn: Turn) -> None:
    await turn.send(b"HTTP/1.1 200 OK\r\n" + b"x-more: yyyyyyyyyyyyyyyy\r\n" * 4000)
    await turn.hang()


async def ends_before_the_first_event(turn: Turn) -> None:
    await turn.send(STREAM_HEAD, END)


async def hangs_before_the_first_event(turn: Turn) -> None:
    await turn.send(STREAM_HEAD)
    await turn.hang()


@pytest.mark.parametrize(
    ("script", "status", "error", "kind"),
    [
        (reset_at_once, 502, "upstream_error", "reset"),
        (garbage, 502, "upstream_error", "protocol"),
        (refuses_the_token, 502, "upstream_error", "refused_token"),
        (html_error, 502, "upstream_error", "bad_answer"),
        (redirect, 502, "upstream_error", "bad_answer"),
        (short_body, 502, "upstream_error", "cut"),
        (both_lengths, 502, "upstream_error", "protocol"),
        (endless_headers, 502, "upstream_error", "protocol"),
        (ends_before_the_first_event, 502, "upstream_error", "cut"),
        (hang, 504, "upstream_timeout", "first_token_timeout"),
        (hangs_before_the_first_event, 504, "upstream_timeout", "first_token_timeout"),
    ],
)
async def test_a_broken_only_replica_is_a_clean_error(
    gateway: Running, script: Script, status: int, error: str, kind: str
) -> None:
    async with upstream(script) as replica:
        gateway.route(replica.port)
        got = await ask(gateway, STREAM)
        assert code(got) == (status, error)
        await eventually(lambda: replica.open == len(gateway.pool), within=2)
    counted = gateway.metric("pippin_gateway_upstream_errors_total", model="team-a/qwen", kind=kind)
    assert counted == 1


async def test_no_listener_at_the_address_is_a_502(gateway: Running) -> None:
    gateway.route(free_port())
    assert code(await ask(gateway)) == (502, "upstream_error")


@pytest.fixture
def deaf() -> Iterator[int]:
    """A port whose queue of connections is full: what comes now gets no answer at all."""
    with socket.socket() as listener, contextlib.ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(2):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


async def test_an_address_that_swallows_connections_is_a_504_and_not_waited_for(
    gateway: Running, deaf: int
) -> None:
    gateway.store.put("modeldeployments", model_object(timeouts={"connect": "200ms"}))
    gateway.route(deaf)
    began = asyncio.get_running_loop().time()
    assert code(await ask(gateway)) == (504, "upstream_timeout")
    assert asyncio.get_running_loop().time() - began < 2


async def test_a_replica_that_fails_again_and_again_is_left_alone_and_costs_no_time(
    gateway: Running,
) -> None:
    breaker = {"failures": 3, "cooldown": "2s"}
    times = {"firstToken": "100ms"}
    gateway.store.put("modeldeployments", model_object(circuitBreaker=breaker, timeouts=times))
    well = asyncio.Event()

    async def hangs_until_mended(turn: Turn) -> None:
        await (turn.send(STREAM_HEAD, event("Hi"), DONE, END) if well.is_set() else hang(turn))

    async with upstream(hangs_until_mended) as replica:
        gateway.route(replica.port)
        for _ in range(3):
            assert code(await ask(gateway, STREAM)) == (504, "upstream_timeout")
        began = asyncio.get_running_loop().time()
        refused = await ask(gateway, STREAM)
        assert code(refused) == (503, "circuit_open")
        assert refused.headers["retry-after"] == "2"
        assert asyncio.get_running_loop().time() - began < 1, "an open breaker was waited for"
        assert len(replica.requests) == 3, "the replica was asked"
        assert gateway.metric("pippin_gateway_breakers_open") == 1
        # After the cooldown one request tries it; it is not well yet.
        await eventually(lambda: ask_status(gateway, 504), within=5)
        assert len(replica.requests) == 4
        assert code(await ask(gateway, STREAM)) == (503, "circuit_open")
        well.set()
        await eventually(lambda: ask_status(gateway, 200), within=5)
        assert gateway.metric("pippin_gateway_breakers_open") == 0


async def ask_status(gateway: Running, status: int) -> bool:
    return (await ask(gateway, STREAM)).status_code == status


async def test_an_open_breaker_sends_everybody_to_the_replica_that_is_well(
    gateway: Running,
) -> None:
    gateway.store.put("modeldeployments", model_object(circuitBreaker={"failures": 1}))
    async with upstream(hang_up_midway) as bad, upstream(good) as fine:
        gateway.route(bad.port, fine.port)
        answers = [await ask(gateway, STREAM) for _ in range(6)]
        assert len(bad.requests) == 1 and len(fine.requests) == 5
    assert {got.status_code for got in answers} == {200}, "what began had begun"


async def hang_up_midway(turn: Turn) -> None:
    await turn.send(STREAM_HEAD, event("Hi"))
    turn.reset()


@pytest.mark.parametrize("script", [reset_at_once, draining])
@pytest.mark.parametrize("body", [ASK, STREAM])
async def test_another_replica_answers_when_one_fails_before_its_first_byte(
    gateway: Running, script: Script, body: dict[str, object]
) -> None:
    async with upstream(script) as bad, upstream(good) as fine:
        gateway.route(bad.port, fine.port)
        for _ in range(4):
            assert (await ask(gateway, body)).status_code == 200
        assert len(fine.requests) == 4
        assert len(bad.requests) == 1, "a replica that just failed is passed over"


async def test_a_refused_connection_is_retried_on_another_replica(gateway: Running) -> None:
    async with upstream(good) as fine:
        gateway.route(free_port(), fine.port)
        answers = [await ask(gateway) for _ in range(4)]
    assert {got.status_code for got in answers} == {200}
    labels = {"model": "team-a/qwen", "kind": "connect"}
    assert gateway.metric("pippin_gateway_retries_total", **labels) >= 1


async def test_there_is_one_retry_and_no_more(gateway: Running) -> None:
    async with upstream(reset_at_once) as a, upstream(reset_at_once) as b, upstream(good) as c:
        gateway.route(a.port, b.port)
        assert code(await ask(gateway)) == (502, "upstream_error")
        assert len(a.requests) == len(b.requests) == 1 and not c.requests


async def test_a_model_says_how_often_it_is_tried_and_how_long_between(gateway: Running) -> None:
    retries = {"attempts": 3, "backoff": "200ms"}
    gateway.store.put("modeldeployments", model_object(retries=retries))
    async with upstream(reset_at_once) as a, upstream(reset_at_once) as b, upstream(good) as c:
        gateway.route(a.port, b.port, c.port)
        began = asyncio.get_running_loop().time()
        answers = [await ask(gateway) for _ in range(3)]
        took = asyncio.get_running_loop().time() - began
        assert {got.status_code for got in answers} == {200}
        assert len(a.requests) == len(b.requests) == 1, "they were passed over after that"
        assert took >= 0.2, "two pauses of at least half of the back-off"
    gateway.store.put("modeldeployments", model_object(retries={"attempts": 1, "backoff": "0s"}))
    async with upstream(reset_at_once) as a, upstream(good) as b:
        gateway.route(a.port, b.port)
        codes = sorted([(await ask(gateway)).status_code for _ in range(2)])
        assert codes in ([200, 200], [200, 502])
        assert len(a.requests) == codes.count(502)


async def test_full_replicas_are_told_as_full_also_when_no_further_try_is_left(
    gateway: Running,
) -> None:
    async with upstream(draining) as a, upstream(draining) as b:
        gateway.route(a.port, b.port)
        answers = [await ask(gateway) for _ in range(80)]
        assert len(a.requests) + len(b.requests) < 160, "the further tries did run out"
    assert {got.status_code for got in answers} == {503}
    assert {got.json()["error"]["code"] for got in answers} == {"overloaded"}


async def test_an_answer_in_one_piece_has_a_time_of_its_own(gateway: Running) -> None:
    gateway.store.put("modeldeployments", model_object(timeouts={"request": "200ms"}))
    async with upstream(hang) as replica:
        gateway.route(replica.port)
        began = asyncio.get_running_loop().time()
        assert code(await ask(gateway)) == (504, "upstream_timeout")
        assert asyncio.get_running_loop().time() - began < 2
    labels = {"model": "team-a/qwen", "kind": "request_timeout"}
    assert gateway.metric("pippin_gateway_upstream_errors_total", **labels) == 1


async def test_a_503_of_the_last_replica_is_passed_on_as_it_is(gateway: Running) -> None:
    async def full(turn: Turn) -> None:
        body = b'{"error":{"message":"full","code":"overloaded"}}'
        whole = answer(body, "503 Service Unavailable")
        await turn.send(whole.replace(b"\r\nContent-L", b"\r\nRetry-After: 3\r\nContent-L"))

    async with upstream(full) as replica:
        gateway.route(replica.port)
        got = await ask(gateway)
    assert (got.status_code, got.headers["retry-after"]) == (503, "3")
    assert got.json() == {"error": {"message": "full", "code": "overloaded"}}


async def test_a_clients_mistake_is_told_in_the_replicas_words(gateway: Running) -> None:
    words = b'{"error":{"message":"max_tokens must be positive","param":"max_tokens"}}'

    async def refusing(turn: Turn) -> None:
        await turn.send(answer(words, "400 Bad Request"))

    async with upstream(refusing) as one, upstream(refusing) as two:
        gateway.route(one.port, two.port)
        got = await ask(gateway)
        assert (got.status_code, got.content) == (400, words)
        assert len(one.requests) + len(two.requests) == 1


async def test_a_late_first_token_is_not_asked_for_twice(gateway: Running) -> None:
    async with upstream(hang) as one, upstream(hang) as two:
        gateway.route(one.port, two.port)
        assert code(await ask(gateway, STREAM)) == (504, "upstream_timeout")
        assert len(one.requests) + len(two.requests) == 1


async def test_an_answer_that_never_ends_ends_at_the_total_time(gateway: Running) -> None:
    gateway.store.put("modeldeployments", model_object(timeouts={"total": "600ms"}))
    async with upstream(hang) as replica:
        gateway.route(replica.port)
        assert code(await ask(gateway)) == (504, "upstream_timeout")


@pytest.mark.parametrize("how", ["close", "reset", "hang", "garbage", "torn", "unsealed"])
async def test_a_stream_that_breaks_ends_in_an_error_event_and_never_in_done(
    gateway: Running, how: str
) -> None:
    async def breaking(turn: Turn) -> None:
        if how == "unsealed":
            await turn.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            await turn.send(b'data: {"choices":[]}\n\n')
            return turn.writer.close()
        await turn.send(STREAM_HEAD, event("one "))
        await asyncio.sleep(0.05)
        if how == "torn":
            await turn.send(chunk(b'data: {"id":"chatcmpl-1","cho'))
        if how == "garbage":
            await turn.send(b"zzzz\r\n")
        if how == "reset":
            return turn.reset()
        if how == "hang":
            return await turn.hang()
        turn.writer.close()

    async with upstream(breaking) as one, upstream(good) as two:
        gateway.route(one.port)
        gateway_client = openai.AsyncOpenAI(
            base_url=gateway.url + "/v1", api_key=gateway.key.key, max_retries=0
        )
        async with gateway_client as ai:
            stream = await ai.chat.completions.create(model="qwen", messages=[], stream=True)
            with pytest.raises(openai.APIError, match="try again"):
                async for _ in stream:
                    pass
        raw = await ask(gateway, STREAM)
        await eventually(lambda: one.open == 0, within=2)
        assert not two.requests
    events = raw.text.strip().split("\n\n")
    last = json.loads(events[-1].removeprefix("data: "))
    assert last["error"]["type"] == "server_error"
    assert last["request_id"] == raw.headers["x-request-id"]
    assert "[DONE]" not in raw.text
    assert all(json.loads(line.removeprefix("data: ")) for line in events)


async def test_a_dead_kept_connection_is_replaced_without_a_word(gateway: Running) -> None:
    async def once(turn: Turn) -> None:
        if turn.number == 1:
            return await turn.send(answer())
        turn.reset()

    async with upstream(once) as replica:
        gateway.route(replica.port)
        for _ in range(5):
            assert (await ask(gateway)).status_code == 200
        assert replica.connections == 5
    assert gateway.metric("pippin_gateway_retries_total", model="team-a/qwen", kind="reset") == 0


async def test_bytes_after_an_answer_do_not_reach_the_next_client(gateway: Running) -> None:
    async def talkative(turn: Turn) -> None:
        await turn.send(answer() + answer(b'{"stolen":true}'))

    async with upstream(talkative) as replica, gateway.client() as http:
        gateway.route(replica.port)
        for _ in range(3):
            assert (await http.post(PATH, json=ASK)).content == ANSWER


async def test_an_answer_without_a_length_ends_with_its_connection(gateway: Running) -> None:
    async def old(turn: Turn) -> None:
        await turn.send(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + ANSWER)
        turn.writer.close()

    async with upstream(old) as replica:
        gateway.route(replica.port)
        got = await ask(gateway)
    assert (got.status_code, got.content) == (200, ANSWER)


async def test_a_big_answer_passes_and_a_cut_one_is_not_taken_for_whole(gateway: Running) -> None:
    big = b'{"data":"' + b"x" * 3_000_000 + b'"}'

    async def large(turn: Turn) -> None:
        await turn.send(answer(big))

    async def cut(turn: Turn) -> None:
        await turn.send(answer(big)[:2_000_000])
        turn.writer.close()

    async with upstream(large) as whole, upstream(cut) as torn:
        gateway.route(whole.port)
        assert (await ask(gateway)).content == big
        gateway.route(torn.port)
        with pytest.raises(httpx.RemoteProtocolError):
            await ask(gateway)


async def test_events_in_crumbs_come_out_whole(gateway: Running) -> None:
    async def dripping(turn: Turn) -> None:
        await turn.send(STREAM_HEAD)
        text = b'data: {"choices":[]}\n\ndata: {"n":2}\r\n\r\ndata: [DONE]\n\n'
        for i in range(len(text)):
            await turn.send(chunk(text[i : i + 1]))
        await turn.send(END)

    async with upstream(dripping) as replica, gateway.client() as http:
        gateway.route(replica.port)
        async with http.stream("POST", PATH, json=STREAM) as got:
            parts = [part async for part in got.aiter_raw()]
    assert b"".join(parts) == b'data: {"choices":[]}\n\ndata: {"n":2}\r\n\r\ndata: [DONE]\n\n'
    assert all(part.endswith((b"\n\n", b"\r\n\r\n")) for part in parts)


async def test_a_client_that_leaves_closes_the_replicas_connection(gateway: Running) -> None:
    async def endless(turn: Turn) -> None:
        await turn.send(STREAM_HEAD)
        while True:
            await turn.send(event("word "))
            await asyncio.sleep(0.02)

    async with upstream(endless) as replica, gateway.client() as http:
        gateway.route(replica.port)
        async with http.stream("POST", PATH, json=STREAM) as got:
            async for _ in got.aiter_raw():
                break
        await eventually(lambda: replica.open == 0, within=1)
    await eventually(lambda: gateway.gateway.health.in_flight() == 0, within=1)
    assert json.loads(gateway.log[-1])["status"] == 200


async def test_a_client_that_leaves_while_it_waits_does_so_too(gateway: Running) -> None:
    async with upstream(hang) as replica, gateway.client() as http:
        gateway.route(replica.port)
        waiting = asyncio.create_task(http.post(PATH, json=ASK))
        await eventually(lambda: len(replica.requests) == 1, within=2)
        waiting.cancel()
        await eventually(lambda: replica.open == 0, within=0.4)
        await eventually(lambda: bool(gateway.log), within=1)
    assert json.loads(gateway.log[-1])["status"] == 499


async def test_a_slow_client_slows_the_replica_and_loses_nothing(gateway: Running) -> None:
    sent = 0

    async def flood(turn: Turn) -> None:
        nonlocal sent
        await turn.send(STREAM_HEAD)
        for _ in range(400):
            await turn.send(chunk(b"data: " + b"x" * 65536 + b"\n\n"))
            sent += 1
        await turn.send(DONE, END)

    gateway.store.put("modeldeployments", model_object(timeouts={"total": "20s"}))
    async with upstream(flood) as replica, gateway.client() as http:
        gateway.route(replica.port)
        got_bytes = 0
        async with http.stream("POST", PATH, json=STREAM) as got:
            seen = -1
            while seen != sent:  # until nothing moves any more
                seen = sent
                await asyncio.sleep(0.1)
            assert sent < 400, "26 MB must not fit into the buffers on the way"
            async for part in got.aiter_raw():
                got_bytes += len(part)
    assert got_bytes == 400 * (65536 + 8) + len(b"data: [DONE]\n\n")
