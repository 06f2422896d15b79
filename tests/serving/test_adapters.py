"""A model with adapters, as clients see it: by name, all at once, and while they come and go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio

from pippin_contract.serverconfig import AdapterConfig
from support import adapters
from support.adapters import Lora
from support.batches import a_batch, a_job, answers
from support.servers import Running, mlx_config, serving

pytestmark = pytest.mark.asyncio(loop_scope="package")

SQL, POET, LATER = Lora(seed=1), Lora(seed=2, rank=6, alpha=3), Lora(seed=3, rank=2, alpha=4)
PROMPT = [list(range(30 + 11 * n, 90 + 13 * n)) for n in range(3)]
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 16}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """One adapter in each form from the start, and others for later."""
    root = tmp_path_factory.mktemp("adapters")
    adapters.peft(root / "sql", tiny_model, SQL)
    adapters.mlx(root / "poet", tiny_model, POET)
    adapters.peft(root / "open/later", tiny_model, LATER)
    torn = adapters.peft(root / "open/torn", tiny_model) / "adapter_model.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1])
    return root


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def server(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, shelf: Path
) -> AsyncIterator[Running]:
    """Adapters may come to it from below `open`."""
    given = tuple(AdapterConfig(name=name, path=str(shelf / name)) for name in ("sql", "poet"))
    config = mlx_config(tiny_model, aliases=("small",), adapters=given, max_concurrency=16)
    env = {
        "PIPPIN_SERVER_ADAPTER_SOURCES": json.dumps([f"file://{shelf}/open"]),
        "PIPPIN_SERVER_FILE_ROOTS": json.dumps([str(shelf / "open")]),
    }
    async with serving(tmp_path_factory.mktemp("adapted"), config, env=env) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="package")
async def client(server: Running) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key="none", max_retries=0
    ) as found:
        yield found


def truth(model: Path) -> list[str]:
    batch = a_batch(model)
    return [answers(batch, [a_job(prompt)])[0] for prompt in PROMPT]


async def said(client: openai.AsyncOpenAI, model: str, prompt: list[int]) -> str:
    answer = await client.completions.create(model=model, prompt=prompt, **GREEDY)
    return answer.choices[0].text


async def test_eight_at_once_answer_as_models_with_the_weights_in_them(
    client: openai.AsyncOpenAI, tiny_model: Path, tmp_path: Path
) -> None:
    wanted = {
        "tiny": truth(tiny_model),
        "tiny:sql": truth(adapters.fused(tmp_path / "sql", tiny_model, SQL)),
        "small:poet": truth(adapters.fused(tmp_path / "poet", tiny_model, POET)),
    }
    asked = [(name, n) for n in range(3) for name in wanted][:8]
    alone = [await said(client, name, PROMPT[n]) for name, n in asked]
    assert alone == [wanted[name][n] for name, n in asked]
    assert len(set(alone)) == 8
    together = await asyncio.gather(*(said(client, name, PROMPT[n]) for name, n in asked))
    assert together == alone


async def test_a_chat_is_streamed_under_the_name_that_the_adapter_has(
    client: openai.AsyncOpenAI,
) -> None:
    stream = await client.chat.completions.create(
        model="small:sql",
        messages=[{"role": "user", "content": "one two three"}],
        stream=True,
        **GREEDY,
    )
    chunks = [chunk async for chunk in stream]
    assert {chunk.model for chunk in chunks} == {"tiny:sql"}
    assert any(chunk.choices[0].delta.content for chunk in chunks)


async def test_they_are_listed_beside_their_model(client: openai.AsyncOpenAI) -> None:
    listed = {card.id: card.model_dump() for card in (await client.models.list()).data}
    assert list(listed) == ["tiny", "tiny:sql", "tiny:poet"]
    assert (listed["tiny"]["root"], listed["tiny"]["parent"]) == ("tiny", None)
    assert (listed["tiny:sql"]["root"], listed["tiny:sql"]["parent"]) == ("sql", "tiny")
    assert (await client.models.retrieve("small:poet")).id == "tiny:poet"


@pytest.mark.parametrize("name", ["tiny:gone", "sql", "tiny:sql:sql", "tiny:"])
async def test_one_that_is_not_there_is_not_found(client: openai.AsyncOpenAI, name: str) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        await said(client, name, PROMPT[0])
    assert refused.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve(name)


async def test_what_an_adapter_has_read_is_kept_for_it_alone(client: openai.AsyncOpenAI) -> None:
    prompt = list(range(200, 300))

    async def cached(name: str) -> int:
        answer = await client.completions.create(model=name, prompt=prompt, **GREEDY)
        assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
        return answer.usage.prompt_tokens_details.cached_tokens or 0

    names = ["tiny:sql", "tiny", "tiny:poet"]
    assert [await cached(name) for name in names] == [0, 0, 0]
    assert all([await cached(name) >= 64 for name in names])


async def test_one_comes_and_goes_while_others_are_answered(
    server: Running, client: openai.AsyncOpenAI, tiny_model: Path, shelf: Path, tmp_path: Path
) -> None:
    before = await said(client, "tiny:sql", PROMPT[1])
    asking = [asyncio.create_task(said(client, "tiny:sql", PROMPT[1])) for _ in range(4)]
    body = {"lora_name": "later", "lora_path": str(shelf / "open/later")}
    loaded = await server.post("/v1/load_lora_adapter", body)
    assert (loaded.status_code, loaded.json()["id"]) == (200, "tiny:later")
    wanted = truth(adapters.fused(tmp_path / "later", tiny_model, LATER))[1]
    assert await said(client, "tiny:later", PROMPT[1]) == wanted
    assert "tiny:later" in [card.id for card in (await client.models.list()).data]
    assert await asyncio.gather(*asking) == [before] * 4

    again = await server.post("/v1/load_lora_adapter", body)
    assert again.status_code == 400 and "unload it first" in again.json()["error"]["message"]

    left = await server.post("/v1/unload_lora_adapter", {"lora_name": "later"})
    assert left.status_code == 200
    with pytest.raises(openai.NotFoundError):
        await said(client, "tiny:later", PROMPT[1])
    assert await said(client, "tiny:sql", PROMPT[1]) == before


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("open/torn", "ModelCorrupted: adapter 'x': adapter_model.safetensors: its header"),
        ("open/none", "ModelSourceNotFound: adapter 'x': "),
        ("sql", "PIPPIN_SERVER_ADAPTER_SOURCES"),
        ("open/../sql", "PIPPIN_SERVER_ADAPTER_SOURCES"),
    ],
)
async def test_what_may_not_come_is_refused_with_the_reason(
    server: Running, shelf: Path, path: str, words: str
) -> None:
    body = {"lora_name": "x", "lora_path": f"{shelf}/{path}"}
    answer = await server.post("/v1/load_lora_adapter", body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "lora_path")
    assert words in error["message"]


async def test_the_echo_engine_has_adapters_too(echo: Running) -> None:
    asked = {"model": "parrot:sql", "messages": [{"role": "user", "content": "hello"}]}
    answer = (await echo.post("/v1/chat/completions", asked)).json()
    assert answer["model"] == "echo:sql"
    assert answer["choices"][0]["message"]["content"] == "hello"


async def test_where_no_sources_are_allowed_none_come(echo: Running) -> None:
    body = {"lora_name": "x", "lora_path": "hf://org/x"}
    assert (await echo.post("/v1/load_lora_adapter", body)).status_code == 404
