"""How a request fared, asked afterwards at /admin/requests/{id}."""

from __future__ import annotations

from typing import Any

import httpx

from pippin_edge.asgi import Scope
from pippin_gateway.explain import Requests, Trace
from support.gateway import ADMIN_TOKEN, Running, key_object, model_object, pod_object
from support.upstreams import STREAM_HEAD, Turn, event, upstream

CHAT = "/v1/chat/completions"


async def ask(gateway: Running, request_id: str, **more: Any) -> httpx.Response:
    async with gateway.client() as http:
        headers = {"x-request-id": request_id}
        return await http.post(CHAT, json={"model": "qwen", **more}, headers=headers)


async def explained(gateway: Running, request_id: str) -> dict[str, Any]:
    async with gateway.client(ADMIN_TOKEN) as http:
        answer = await http.get(f"/admin/requests/{request_id}")
    assert answer.status_code == 200, answer.text
    assert gateway.key.key not in answer.text
    found: dict[str, Any] = answer.json()
    return found


async def resetting(turn: Turn) -> None:
    turn.reset()


async def test_an_answer_after_a_retry_names_both_replicas(gateway: Running) -> None:
    gateway.store.put("apikeys", key_object(gateway.key, limits={"rpm": 9, "tpm": 9000}))
    async with upstream(resetting) as broken, upstream() as good:
        gateway.route(broken.port, good.port)
        for attempt in range(4):  # until the broken one is asked first
            assert (await ask(gateway, f"r{attempt}", stream=True)).status_code == 200
            told = await explained(gateway, f"r{attempt}")
            if len(told["hops"]) == 2:
                break
    assert [hop["outcome"] for hop in told["hops"]] == ["reset", "200"]
    assert [hop["replica"] for hop in told["hops"]] == ["qwen-0", "qwen-1"]
    assert (told["status"], told["error"], told["served_by"]) == (200, None, "qwen-1")
    assert (told["key"], told["key_id"]) == ("team-a/app", gateway.key.key_id)
    assert (told["model_asked"], told["model"]) == ("qwen", "team-a/qwen")
    assert told["tokens"] == {"prompt": 7, "completion": 3, "cached": 0}
    assert 0 < told["ttft_ms"] <= told["duration_ms"]
    assert {one["kind"]: one["limit"] for one in told["limits"]} == {"rpm": 9, "tpm": 9000}


async def test_a_stream_that_broke_off_is_not_told_as_good(gateway: Running) -> None:
    async def cut(turn: Turn) -> None:
        await turn.send(STREAM_HEAD, event("one "))
        turn.reset()

    async with upstream(cut) as replica:
        gateway.route(replica.port)
        assert b"error" in (await ask(gateway, "torn", stream=True)).content
    told = await explained(gateway, "torn")
    (hop,) = told["hops"]
    assert hop["outcome"] == told["error"]["code"] != "200"


async def test_a_refusal_says_which_limit_it_was(gateway: Running) -> None:
    gateway.store.put("apikeys", key_object(gateway.key, limits={"rpm": 1}))
    async with upstream() as replica:
        gateway.route(replica.port)
        await ask(gateway, "first")
        assert (await ask(gateway, "second")).status_code == 429
    told = await explained(gateway, "second")
    assert (
        told["error"]["code"] == "rate_limited"
        and "1 requests a minute" in told["error"]["message"]
    )
    (limit,) = told["limits"]
    assert (limit["kind"], limit["name"], limit["remaining"]) == ("rpm", "team-a/app", 0)
    assert 55 < limit["refused_for_s"] <= 60
    assert told["hops"] == []


async def test_a_fallback_says_why_the_model_itself_did_not_answer(gateway: Running) -> None:
    gateway.store.put("modeldeployments", model_object(fallbacks=["spare"]))
    gateway.store.put("modeldeployments", model_object("spare"))
    async with upstream() as replica:
        gateway.store.put("pods", pod_object("spare-0", replica.port, "spare"))
        gateway.store.refresh()
        await ask(gateway, "elsewhere")
    told = await explained(gateway, "elsewhere")
    assert told["passed_over"] == [{"model": "team-a/qwen", "reason": "no_ready_replicas"}]
    assert (told["model_asked"], told["model"]) == ("qwen", "team-a/spare")


async def test_a_model_that_does_not_exist_is_told_as_it_was_asked_for(gateway: Running) -> None:
    await ask(gateway, "nobody", model="no-such-" + "x" * 500)
    told = await explained(gateway, "nobody")
    assert told["model"] is None and told["error"]["code"] == "model_not_found"
    assert told["model_asked"].startswith("no-such-") and len(told["model_asked"]) == 128


async def test_an_unknown_request_is_not_found(gateway: Running) -> None:
    async with gateway.client("") as http:
        await http.post(CHAT, json={}, headers={"x-request-id": "anonymous"})
    async with gateway.client(ADMIN_TOKEN) as http:
        for unknown in ("never", "anonymous"):
            answer = await http.get(f"/admin/requests/{unknown}")
            assert answer.status_code == 404
            assert answer.json()["error"]["code"] == "not_found"


def test_only_the_last_ones_are_remembered() -> None:
    requests = Requests(most=3)
    for number in (0, 1, 2, 3, 1):
        scope: Scope = {
            "path": CHAT,
            "state": {"request_id": str(number), "log": {}, "trace": Trace(began=0)},
        }
        requests.keep(scope, 200 + number, 0.5)
    known = [number for number in range(4) if requests.told(str(number))]
    assert known == [1, 2, 3]
    told = requests.told("1")
    assert told is not None and told["status"] == 201
