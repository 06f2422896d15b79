"""How much models are asked for, at /admin/demand: what is under way, and since when nothing is."""

from __future__ import annotations

import asyncio

from pippin_contract import demand
from pippin_contract.demand import ModelDemand
from support.eventually import eventually
from support.gateway import ADMIN_TOKEN, Running, model_object
from support.upstreams import Turn, answer, upstream

CHAT, DEMAND = "/v1/chat/completions", "/admin/demand"


async def report(gateway: Running) -> dict[str, ModelDemand]:
    async with gateway.client(ADMIN_TOKEN) as http:
        answered = await http.get(DEMAND)
    assert answered.status_code == 200, answered.text
    return {one.model: one for one in demand.load(answered.content).models}


async def ask(gateway: Running, model: str = "qwen") -> int:
    async with gateway.client() as http:
        return (await http.post(CHAT, json={"model": model})).status_code


async def test_only_the_administrators_token_opens_it(gateway: Running) -> None:
    async with gateway.client() as http:
        assert (await http.get(DEMAND)).status_code == 401
    assert await report(gateway) == {}


async def test_what_is_under_way_is_told_until_it_is_over(gateway: Running) -> None:
    go = asyncio.Event()

    async def serve(turn: Turn) -> None:
        await go.wait()
        await turn.send(answer())

    async with upstream(serve) as replica:
        gateway.route(replica.port)
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(ask(gateway)) for _ in range(3)]
            await eventually(lambda: len(replica.requests) == 3)
            told = (await report(gateway))["team-a/qwen"]
            assert (told.in_flight, told.waiting) == (3, 0)
            go.set()
        assert [one.result() for one in asked] == [200] * 3
    told = (await report(gateway))["team-a/qwen"]
    assert told.in_flight == 0 and told.asked_seconds_ago < 20


async def test_a_request_that_is_held_until_a_replica_comes_is_told_as_one_that_waits(
    gateway: Running,
) -> None:
    gateway.store.put("modeldeployments", model_object(timeouts={"queue": "20s"}))
    gateway.store.refresh()

    async def waiting() -> int:
        told = (await report(gateway)).get("team-a/qwen")
        return told.waiting if told else 0

    async with upstream() as replica, asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(gateway)) for _ in range(2)]
        await eventually(waiting, until=lambda count: count == 2)
        gateway.route(replica.port)
    assert [one.result() for one in asked] == [200, 200]
    assert await waiting() == 0


async def test_a_request_that_nobody_could_answer_was_asked_all_the_same(gateway: Running) -> None:
    assert await ask(gateway) == 503
    (told,) = (await report(gateway)).values()
    assert told.asked_seconds_ago < 20


async def test_a_request_without_the_right_to_the_model_does_not_count(gateway: Running) -> None:
    assert await ask(gateway, model="no-such") == 404
    async with gateway.client("pp_wrong_key") as http:
        assert (await http.post(CHAT, json={"model": "qwen"})).status_code == 401
    assert await report(gateway) == {}


async def test_load_is_told_of_the_model_that_carries_it(gateway: Running) -> None:
    """A fallback's replicas work for those that asked for another."""
    go = asyncio.Event()

    async def serve(turn: Turn) -> None:
        await go.wait()
        await turn.send(answer())

    models = [model_object(fallbacks=["spare"]), model_object("spare")]
    gateway.store.replace("modeldeployments", models)
    async with upstream(serve) as replica:
        gateway.route(replica.port, model="spare")
        async with asyncio.TaskGroup() as group:
            group.create_task(ask(gateway))
            await eventually(lambda: len(replica.requests) == 1)
            told = await report(gateway)
            go.set()
    assert told["team-a/spare"].in_flight == 1
    assert told["team-a/qwen"].in_flight == 0
    assert told["team-a/qwen"].asked_seconds_ago < 20


async def test_a_model_that_is_gone_is_forgotten(gateway: Running) -> None:
    await ask(gateway)
    gateway.store.replace("modeldeployments", [])
    gateway.store.refresh()
    assert await report(gateway) == {}
    gateway.store.replace("modeldeployments", [model_object()])
    gateway.store.refresh()
    assert await report(gateway) == {}
