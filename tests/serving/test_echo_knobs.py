"""The knobs of the echo engine, turned while it runs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from support.eventually import eventually
from support.servers import Running, echo_config, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASK = {"model": "echo", "prompt": "one two three four", "max_tokens": 10}
#: As they are without any.
CALM = {"errorPercent": 0, "overloadedPercent": 0, "outOfMemoryPercent": 0, "brokenPercent": 0}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    config = echo_config(liveness_stall_seconds=1)
    async with serving(tmp_path_factory.mktemp("knobs"), config) as running:
        yield running


async def turn(server: Running, **knobs: Any) -> dict[str, Any]:
    answer = await server.post("/internal/echo", knobs)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def asked(server: Running) -> str:
    answer = await server.post("/v1/completions", ASK)
    return "ok" if answer.status_code == 200 else str(answer.json()["error"]["code"])


async def test_knobs_are_shown_and_those_that_are_given_change(server: Running) -> None:
    before = (await server.get("/internal/echo")).json()["knobs"]
    assert before["tokensPerSecond"] == before["wedgeAfter"] == 0
    found = await turn(server, tokensPerSecond=5, seed=3)
    assert found["knobs"] == {**before, "tokensPerSecond": 5, "seed": 3}
    assert (await server.get("/internal/echo")).json()["knobs"] == found["knobs"]
    assert "echo.knobs" in server.log
    began = asyncio.get_running_loop().time()
    assert await asked(server) == "ok"
    assert asyncio.get_running_loop().time() - began > 0.5, "three pauses of a fifth of a second"
    await turn(server, tokensPerSecond=0)


@pytest.mark.parametrize(
    ("knobs", "named"),
    [
        ({"errorPercnt": 5}, "errorPercnt"),
        ({"errorPercent": 101}, "errorPercent"),
        ({"errorPercent": "5"}, "errorPercent"),
        ({"seed": 1, "loadSeconds": -1}, "loadSeconds"),
        ({"dimensions": 7}, "dimensions"),
    ],
)
async def test_a_knob_that_is_none_changes_nothing(
    server: Running, knobs: dict[str, Any], named: str
) -> None:
    before = (await server.get("/internal/echo")).json()["knobs"]
    refused = await server.post("/internal/echo", knobs)
    assert refused.status_code == 400 and refused.json()["error"]["param"] == named
    assert (await server.get("/internal/echo")).json()["knobs"] == before


async def test_failures_of_each_kind_have_their_share_and_come_again_by_the_seed(
    server: Running,
) -> None:
    shares = {
        "errorPercent": 25,
        "overloadedPercent": 25,
        "outOfMemoryPercent": 25,
        "brokenPercent": 10,
    }

    async def fates(seed: int) -> list[str]:
        await turn(server, **shares, seed=seed)
        async with server.client() as client:
            answers = [await client.post("/v1/completions", json=ASK) for _ in range(60)]
        return [told.json().get("error", {"code": "ok"})["code"] for told in answers]

    first, again, other = await fates(7), await fates(7), await fates(8)
    assert first == again != other
    counted = Counter(first)
    assert set(counted) == {"ok", "engine_failed", "overloaded", "out_of_memory"}
    assert counted["engine_failed"] > counted["overloaded"] - 12, "also those that break off"
    assert counted["ok"] < 30
    await turn(server, **CALM)


async def test_an_answer_breaks_off_in_the_middle(server: Running) -> None:
    await turn(server, brokenPercent=100)
    answer = await server.post("/v1/completions", {**ASK, "stream": True})
    assert answer.status_code == 200
    assert '"text":"one"' in answer.text and "broke off as configured" in answer.text
    assert "four" not in answer.text and "[DONE]" not in answer.text
    await turn(server, **CALM)


async def test_it_stands_still_until_it_is_told_otherwise(server: Running) -> None:
    await turn(server, wedgeAfter=2)
    assert await asked(server) == "ok"
    stuck = asyncio.create_task(asked(server))

    async def stalled() -> bool:
        return (await server.get("/livez")).status_code == 503

    await eventually(stalled, within=20)
    await turn(server, wedgeAfter=0)
    assert await stuck == "engine_failed"
    assert (await server.get("/livez")).status_code == 200
    assert await asked(server) == "ok"


async def test_it_loads_slowly_again(server: Running) -> None:
    await turn(server, loadSeconds=1)

    async def ready() -> bool:
        return (await server.get("/ready")).status_code == 200

    assert not await ready() and (await server.get("/livez")).status_code == 200
    assert await asked(server) == "not_ready"
    await eventually(ready, within=20)
    assert await asked(server) == "ok"


async def test_memory_runs_out_from_a_request_on_and_comes_back(server: Running) -> None:
    await turn(server, outOfMemoryAfter=2)
    assert [await asked(server) for _ in range(3)] == ["ok", "out_of_memory", "out_of_memory"]
    await turn(server, outOfMemoryAfter=0)
    assert await asked(server) == "ok"


async def test_zz_the_next_request_may_be_the_last(server: Running) -> None:
    await turn(server, crashAfter=1)
    with pytest.raises(httpx.TransportError):
        await asked(server)
    assert await server.exit_code() == 70
