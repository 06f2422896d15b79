"""Models that cannot answer, and who answers in their place."""

from __future__ import annotations

import json

import httpx
import openai
import pytest

from support.gateway import Running, free_port, key_object, model_object, pod_object
from support.upstreams import STREAM_HEAD, Script, Turn, Upstream, answer, event, good, upstream

PATH = "/v1/chat/completions"
ASK = {"model": "qwen", "messages": [], "temperature": 0.5}
STREAM = {**ASK, "stream": True}


async def ask(gateway: Running, body: dict[str, object] = ASK) -> httpx.Response:
    async with gateway.client() as http:
        return await http.post(PATH, json=body)


def place(gateway: Running, **ports: int | None) -> None:
    """One replica for each of these models; None: a model without any."""
    pods = [pod_object(f"{name}-0", port, name) for name, port in ports.items() if port]
    gateway.store.replace("pods", pods)
    gateway.store.refresh()


def models(gateway: Running, **fallbacks: list[str]) -> None:
    objects = [model_object(name, fallbacks=names) for name, names in fallbacks.items()]
    gateway.store.replace("modeldeployments", objects)


def asked(replica: Upstream) -> list[str]:
    return [json.loads(request.body)["model"] for request in replica.requests]


async def test_a_model_with_nobody_ready_is_answered_by_its_fallback(gateway: Running) -> None:
    models(gateway, qwen=["llama"], llama=[])
    async with upstream() as llama:
        place(gateway, qwen=None, llama=llama.port)
        got = await ask(gateway)
    assert got.status_code == 200
    assert got.headers["x-pippin-served-by"] == "llama-0"
    assert got.headers["x-pippin-fallback"] == "qwen=no_ready_replicas"
    sent = json.loads(llama.requests[0].body)
    assert sent == {**ASK, "model": "llama"}
    labels = {"model": "team-a/qwen", "instead": "team-a/llama", "reason": "no_ready_replicas"}
    assert gateway.metric("pippin_gateway_fallbacks_total", **labels) == 1


async def fails(turn: Turn) -> None:
    await turn.send(answer(b'{"error":{}}', "500 Internal Server Error"))


async def full(turn: Turn) -> None:
    await turn.send(answer(b'{"error":{}}', "503 Service Unavailable"))


async def hangs(turn: Turn) -> None:
    await turn.hang()


async def resets(turn: Turn) -> None:
    turn.reset()


async def ends_early(turn: Turn) -> None:
    await turn.send(STREAM_HEAD)
    turn.writer.close()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (fails, "server_error"),
        (full, "unavailable"),
        (hangs, "first_token_timeout"),
        (resets, "reset"),
        (ends_early, "cut"),
    ],
)
async def test_trouble_before_the_first_byte_is_never_seen(
    gateway: Running, script: Script, reason: str
) -> None:
    spec = {"fallbacks": ["llama"], "timeouts": {"firstToken": "200ms"}}
    gateway.store.replace("modeldeployments", [model_object(**spec), model_object("llama")])
    async with upstream(script) as qwen, upstream() as llama:
        place(gateway, qwen=qwen.port, llama=llama.port)
        async with openai.AsyncOpenAI(
            base_url=f"{gateway.url}/v1", api_key=gateway.key.key, max_retries=0
        ) as client:
            stream = await client.chat.completions.create(model="qwen", messages=[], stream=True)
            words = [c.choices[0].delta.content or "" async for c in stream]
    assert "".join(words) == "one two three"
    assert stream.response.headers["x-pippin-fallback"] == f"qwen={reason}"
    assert len(qwen.requests) == 1
    assert (
        gateway.metric(
            "pippin_gateway_tokens_total", model="team-a/llama", key="team-a/app", kind="completion"
        )
        == 3
    )


async def test_trouble_after_the_first_byte_is_told(gateway: Running) -> None:
    async def breaks_off(turn: Turn) -> None:
        await turn.send(STREAM_HEAD, event("one"))
        turn.reset()

    models(gateway, qwen=["llama"], llama=[])
    async with upstream(breaks_off) as qwen, upstream() as llama:
        place(gateway, qwen=qwen.port, llama=llama.port)
        got = await ask(gateway, STREAM)
    assert "[DONE]" not in got.text and '"error"' in got.text
    assert llama.requests == []


async def test_an_open_breaker_costs_no_time(gateway: Running) -> None:
    breaker = {"failures": 1, "cooldown": "60s"}
    gateway.store.replace(
        "modeldeployments",
        [model_object(fallbacks=["llama"], circuitBreaker=breaker), model_object("llama")],
    )
    async with upstream(fails) as qwen, upstream() as llama:
        place(gateway, qwen=qwen.port, llama=llama.port)
        first, second = await ask(gateway), await ask(gateway)
    assert first.headers["x-pippin-fallback"] == "qwen=server_error"
    assert second.headers["x-pippin-fallback"] == "qwen=circuit_open"
    assert len(qwen.requests) == 1


async def test_what_the_client_asked_wrongly_is_not_asked_again(gateway: Running) -> None:
    async def refuses(turn: Turn) -> None:
        await turn.send(answer(b'{"error":{"message":"no"}}', "400 Bad Request"))

    models(gateway, qwen=["llama"], llama=[])
    async with upstream(refuses) as qwen, upstream() as llama:
        place(gateway, qwen=qwen.port, llama=llama.port)
        got = await ask(gateway)
    assert got.status_code == 400
    assert llama.requests == []


async def test_the_chain_goes_deep_first_and_never_in_a_circle(gateway: Running) -> None:
    models(gateway, qwen=["a", "b", "absent"], a=["qwen", "deep"], deep=["a"], b=[])
    async with upstream(fails) as broken, upstream() as last:
        place(gateway, qwen=broken.port, a=broken.port, deep=broken.port, b=last.port)
        got = await ask(gateway)
    assert got.status_code == 200
    assert asked(broken) == ["qwen", "a", "deep"]
    assert asked(last) == ["b"]


async def test_when_all_fail_the_client_is_told_of_its_own_model(gateway: Running) -> None:
    models(gateway, qwen=["llama"], llama=["qwen"])
    place(gateway, qwen=None, llama=free_port())
    got = await ask(gateway)
    assert got.status_code == 503
    assert got.json()["error"]["code"] == "no_ready_replicas"
    assert "'qwen'" in got.json()["error"]["message"]


async def test_a_model_for_another_task_is_no_fallback(gateway: Running) -> None:
    objects = [
        model_object(fallbacks=["embedder"]),
        model_object("embedder", model={"task": "embedding"}),
    ]
    gateway.store.replace("modeldeployments", objects)
    async with upstream() as embedder:
        place(gateway, qwen=None, embedder=embedder.port)
        got = await ask(gateway)
    assert got.status_code == 503
    assert embedder.requests == []


async def test_the_models_owner_decides_who_answers_and_not_the_keys_globs(
    gateway: Running,
) -> None:
    """A key that may ask for qwen is answered by whom qwen names, and may not ask for that."""
    narrow = key_object(gateway.key)
    narrow["spec"]["models"] = ["qwen"]
    gateway.store.replace("apikeys", [narrow])
    models(gateway, qwen=["llama"], llama=[])
    async with upstream(good) as llama:
        place(gateway, qwen=None, llama=llama.port)
        assert (await ask(gateway)).status_code == 200
        assert (await ask(gateway, {**ASK, "model": "llama"})).status_code == 404


async def test_time_that_is_up_is_up_for_all(gateway: Running) -> None:
    spec = {"fallbacks": ["llama"], "timeouts": {"total": "200ms"}}
    gateway.store.replace("modeldeployments", [model_object(**spec), model_object("llama")])
    async with upstream(hangs) as qwen, upstream() as llama:
        place(gateway, qwen=qwen.port, llama=llama.port)
        got = await ask(gateway)
    assert got.status_code == 504
    assert llama.requests == []
