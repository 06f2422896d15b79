"""A model's adapters through the gateway: their names, whom they are open to, what they count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest

from pippin_contract.serverconfig import AdapterConfig
from support.gateway import Running, key_object, model_object, new_key
from support.servers import echo_config, serving
from support.upstreams import upstream

MESSAGES: Any = [{"role": "user", "content": "hi"}]
SQL = {"name": "sql", "uri": "hf://org/sql"}


def a_client(gateway: Running, key: str | None = None) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=gateway.url + "/v1", api_key=key or gateway.key.key, max_retries=0
    )


def adapted(gateway: Running, **spec: Any) -> None:
    model = {"aliases": ["gpt"], "adapters": [SQL], **spec.pop("model", {})}
    gateway.store.put("modeldeployments", model_object(model=model, **spec))
    gateway.store.refresh()


async def test_the_official_client_asks_a_server_for_an_adapter(
    gateway: Running, tmp_path: Path
) -> None:
    adapted(gateway)
    config = echo_config(
        served_name="qwen", aliases=("gpt",), adapters=(AdapterConfig(name="sql"),)
    )
    async with serving(tmp_path, config) as server, a_client(gateway) as ai:
        gateway.route(int(server.url.rpartition(":")[2]))
        for name in ("qwen:sql", "gpt:sql", "team-a/qwen:sql"):
            got = await ai.chat.completions.create(model=name, messages=MESSAGES)
            assert (got.model, got.choices[0].message.content) == ("qwen:sql", "hi")
        with pytest.raises(openai.NotFoundError) as refused:
            await ai.chat.completions.create(model="qwen:gone", messages=MESSAGES)
    assert refused.value.code == "model_not_found"
    labels = {"model": "team-a/qwen", "key": "team-a/app"}
    assert gateway.metric("pippin_gateway_tokens_total", kind="completion", **labels) == 3


async def test_they_are_listed_for_who_may_use_them(gateway: Running) -> None:
    adapted(gateway)
    few = new_key()
    gateway.store.put("apikeys", key_object(few, "few", models=["qwen"]))
    async with a_client(gateway) as ai, a_client(gateway, few.key) as plain:
        listed = [card.model_dump() async for card in ai.models.list()]
        assert [(one["id"], one["root"], one["parent"]) for one in listed] == [
            ("qwen", "qwen", None),
            ("qwen:sql", "sql", "qwen"),
        ]
        assert (await ai.models.retrieve("gpt:sql")).id == "qwen:sql"
        assert [card.id async for card in plain.models.list()] == ["qwen"]
        for ask in (
            plain.models.retrieve("qwen:sql"),
            plain.chat.completions.create(model="qwen:sql", messages=MESSAGES),
        ):
            with pytest.raises(openai.NotFoundError):
                await ask


async def test_kept_answers_of_one_are_not_anothers(gateway: Running) -> None:
    adapted(gateway, responseCache={"enabled": True})
    asked: Any = {"messages": MESSAGES, "temperature": 0}
    async with upstream() as replica, gateway.client() as http:
        gateway.route(replica.port)
        hits = []
        for name in ("qwen", "qwen:sql", "qwen", "qwen:sql"):
            got = await http.post("/v1/chat/completions", json={"model": name, **asked})
            hits.append(got.headers.get("x-pippin-cache"))
    assert hits == [None, None, "hit", "hit"]
    assert [json.loads(r.body)["model"] for r in replica.requests] == ["qwen", "qwen:sql"]


async def test_what_they_take_counts_for_the_model(gateway: Running) -> None:
    adapted(gateway, limits={"rpm": 2})
    async with upstream() as replica, gateway.client() as http:
        gateway.route(replica.port)
        statuses = [
            (await http.post("/v1/chat/completions", json={"model": name})).status_code
            for name in ("qwen:sql", "qwen", "gpt:sql")
        ]
    assert statuses == [200, 200, 429]


async def test_an_adapter_falls_back_to_the_one_of_its_name(gateway: Running) -> None:
    adapted(gateway, fallbacks=["llama"])
    gateway.store.put("modeldeployments", model_object("llama", model={"adapters": [SQL]}))
    async with upstream() as llama, gateway.client() as http:
        gateway.route(llama.port, model="llama")
        got = await http.post("/v1/chat/completions", json={"model": "qwen:sql"})
        assert (got.status_code, got.headers["x-pippin-served-by"]) == (200, "llama-0")
        assert json.loads(llama.requests[0].body)["model"] == "llama:sql"
