"""Embeddings by the official client: of the echo engine, and of a real model, MiniLM, with MLX."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio
import weights

from support.eventually import eventually
from support.servers import Running, echo_config, free_port, mlx_config, run_cli, serving, started

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: What transformers' BertModel makes of these texts, pooled as the model's files say.
CAT = [0.0373304, 0.0511618, -0.0003061, 0.0602099, -0.1174944, -0.0142300]
FOX = [0.0439336, 0.0589344, 0.0481784, 0.0775481, 0.0267444, -0.0376296]
PANGRAM = "The quick brown fox jumps over the lazy dog."
PATH = "/v1/embeddings"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def echo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """Vectors of 8 numbers, texts of at most 10 words, 4 of them together."""
    config = echo_config(
        aliases=("parrot",),
        echo={"dimensions": 8},
        model={"task": "embedding", "context_length": 10},
        batching={"max_batch_size": 4},
    )
    async with serving(tmp_path_factory.mktemp("echo-embed"), config) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def minilm(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    model: Path = await asyncio.to_thread(weights.prepare, source=weights.MINILM)
    config = mlx_config(model, served_name="minilm", model={"task": "embedding"})
    async with serving(tmp_path_factory.mktemp("minilm"), config) as running:
        yield running


def client_of(server: Running) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60
    )


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


async def test_what_means_the_same_is_near(minilm: Running) -> None:
    async with client_of(minilm) as client:
        answer = await client.embeddings.create(
            model="minilm", input=["cat", "kitten", "stocks", PANGRAM]
        )
    cat, kitten, stocks, fox = (item.embedding for item in answer.data)
    assert cat[:6] == pytest.approx(CAT, abs=1e-5)
    assert fox[:6] == pytest.approx(FOX, abs=1e-5)
    assert math.hypot(*cat) == pytest.approx(1, abs=1e-5)
    # As vLLM finds them too: tests/vllm/test_embeddings.py.
    assert cosine(cat, kitten) == pytest.approx(0.788, abs=0.002)
    assert cosine(cat, stocks) == pytest.approx(0.203, abs=0.002)
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (21, 21)


async def test_company_changes_no_vector(minilm: Running) -> None:
    texts = ["cat", PANGRAM, "word " * 200, "a house on the hill"]
    async with client_of(minilm) as client:
        alone = [await client.embeddings.create(model="minilm", input=t) for t in texts]
        together = await client.embeddings.create(model="minilm", input=texts)
        at_once = await asyncio.gather(
            *(client.embeddings.create(model="minilm", input=texts[n % 4]) for n in range(24))
        )
    for number, item in enumerate(together.data):
        expected = pytest.approx(alone[number].data[0].embedding, abs=1e-5)
        assert item.embedding == expected
        assert all(one.data[0].embedding == expected for one in at_once[number::4])
    batches = await minilm.metric("pippin_server_embedding_batch_inputs_count")
    texts_in_them = await minilm.metric("pippin_server_embedding_batch_inputs_sum")
    assert texts_in_them > 1.5 * batches, "requests that come at once share batches"


async def test_token_ids_are_taken_as_they_are(minilm: Running) -> None:
    async with client_of(minilm) as client:
        answer = await client.embeddings.create(model="minilm", input=[[101, 4937, 102]])
        with pytest.raises(openai.BadRequestError, match="30522"):
            await client.embeddings.create(model="minilm", input=[[101, 30522]])
    assert answer.data[0].embedding[:6] == pytest.approx(CAT, abs=1e-5)
    assert answer.usage.prompt_tokens == 3


async def test_fewer_dimensions_have_length_1(minilm: Running) -> None:
    async with client_of(minilm) as client:
        whole = await client.embeddings.create(model="minilm", input="cat")
        short = await client.embeddings.create(model="minilm", input="cat", dimensions=64)
        with pytest.raises(openai.BadRequestError) as refused:
            await client.embeddings.create(model="minilm", input="cat", dimensions=385)
    vector = short.data[0].embedding
    assert len(vector) == 64
    assert math.hypot(*vector) == pytest.approx(1, abs=1e-5)
    assert cosine(vector, whole.data[0].embedding[:64]) == pytest.approx(1, abs=1e-6)
    assert refused.value.param == "dimensions"
    assert "385" in refused.value.message and "384" in refused.value.message


async def test_a_text_beyond_the_context_is_refused_with_both_numbers(minilm: Running) -> None:
    async with client_of(minilm) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.embeddings.create(model="minilm", input=["cat", "word " * 300])
    assert (refused.value.param, refused.value.code) == ("input.1", "context_length_exceeded")
    assert "302" in refused.value.message and "256" in refused.value.message


async def test_the_server_tells_what_it_serves(minilm: Running) -> None:
    (model,) = (await minilm.get("/v1/models")).json()["data"]
    assert (model["id"], model["context_length"]) == ("minilm", 256)
    health = (await minilm.get("/health")).json()
    assert (health["status"], health["warmup_completed"]) == ("ok", True)
    found = (await minilm.get("/internal/diagnostics")).json()
    assert found["config"]["model_type"] == "embedding"
    assert '"pooling": "mean"' in minilm.log or "pooling=mean" in minilm.log


async def test_floats_and_base64_say_the_same(echo: Running) -> None:
    body: dict[str, Any] = {"model": "parrot", "input": "cat"}
    plain = (await echo.post(PATH, body)).json()
    async with client_of(echo) as client:
        decoded = await client.embeddings.create(model="parrot", input="cat")
    assert (plain["object"], plain["model"]) == ("list", "echo")
    assert plain["data"][0]["embedding"] == pytest.approx(decoded.data[0].embedding)
    assert len(decoded.data[0].embedding) == 8
    assert math.hypot(*decoded.data[0].embedding) == pytest.approx(1, abs=1e-6)
    packed = (await echo.post(PATH, {**body, "encoding_format": "base64"})).json()
    assert isinstance(packed["data"][0]["embedding"], str)


async def test_the_same_text_always_has_the_same_vector(echo: Running) -> None:
    async with client_of(echo) as client:
        words = [f"number {n % 7}" for n in range(50)]
        many = await client.embeddings.create(model="echo", input=words)
        one = await client.embeddings.create(model="echo", input="number 3")
    assert [item.index for item in many.data] == list(range(50))
    assert many.data[3].embedding == many.data[10].embedding == one.data[0].embedding
    assert many.data[3].embedding != many.data[4].embedding
    assert (many.usage.prompt_tokens, one.usage.prompt_tokens) == (100, 2)
    assert await echo.metric("pippin_server_embedding_batch_inputs_bucket", le="4.0") > 12
    logged = await eventually(lambda: '"inputs":50' in echo.access_lines and echo.access_lines)
    assert '"prompt_tokens":100' in logged


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"input": ""}, "input", "empty"),
        ({"input": []}, "input", "empty"),
        ({"input": ["a", ""]}, "input.1", "empty"),
        ({"input": "a b c d e f g h i j k"}, "input", "11 tokens"),
        ({"input": ["a", "a " * 11]}, "input.1", "reads 10"),
        ({"dimensions": 9}, "dimensions", "9"),
        ({"encoding_format": "hex"}, "encoding_format", "base64"),
        ({"truncate": True}, "truncate", "unknown"),
    ],
)
async def test_a_wrong_field_is_named(
    echo: Running, fields: dict[str, Any], param: str, words: str
) -> None:
    answer = await echo.post(PATH, {"model": "echo", "input": "cat", **fields})
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert words in error["message"]


async def test_another_model_is_not_found(echo: Running) -> None:
    answer = await echo.post(PATH, {"model": "nobody", "input": "cat"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_an_embedding_model_says_that_it_does_not_chat(echo: Running, path: str) -> None:
    answer = await echo.post(path, {"model": "echo", "messages": [], "prompt": "x"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == f"this model does embedding, not {path}"


async def test_a_server_is_full_until_who_waits_leaves_and_dead_when_it_stands_still(
    tmp_path: Path,
) -> None:
    config = echo_config(
        echo={"wedge_after": 1},
        model={"task": "embedding"},
        max_concurrency=1,
        max_queue=0,
        liveness_stall_seconds=1,
    )
    body = {"model": "echo", "input": "cat"}
    async with serving(tmp_path, config) as server:

        async def active() -> int:
            found: int = (await server.get("/v1/queue/stats")).json()["active"]
            return found

        async def is_taken() -> bool:
            return await active() == 1

        async def is_free() -> bool:
            return await active() == 0

        async def is_dead() -> bool:
            return (await server.get("/livez")).status_code == 503

        asking = asyncio.create_task(server.post(PATH, body))
        await eventually(is_taken)
        full = await server.post(PATH, body)
        assert (full.status_code, full.json()["error"]["code"]) == (503, "overloaded")
        await eventually(is_dead)
        asking.cancel()
        await eventually(is_free)


async def test_the_setting_of_earlier_servers_chooses_the_task(tmp_path: Path) -> None:
    env = {"MODEL_TYPE": "embeddings"}
    async with started(tmp_path, ["--engine", "echo"], env=env) as server:
        answer = await server.post(PATH, {"model": "echo", "input": "cat"})
        assert len(answer.json()["data"][0]["embedding"]) == 384
    wrong = run_cli(
        *("check", "--engine", "echo", "--port", str(free_port())), env={"MODEL_TYPE": "rerank"}
    )
    assert wrong.returncode == 78
    assert "TASK" in wrong.stderr and "embedding" in wrong.stderr
