"""One server with a directory of models: real ones with MLX, and echo engines beside."""

from __future__ import annotations

import asyncio
import base64
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio

from support import speech, tinydiffusion, tinymodel, tinywhisper
from support.eventually import eventually
from support.media import size, wav
from support.promlint import problems
from support.servers import Running, started

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: About 100 MB of weights, so that one sees them come and go.
LARGE = tinymodel.Shape(layers=4, hidden=768, inter=2048, heads=12, kv_heads=12, seed=3)
#: Echo engines that stream for seconds, or load for minutes.
SLOW = '{"engine": "echo", "aliases": ["%s"], "echo": {"tokensPerSecond": 4}}'
BRUSH = '{"engine": "echo", "task": "image"}'
SLOTH = '{"engine": "echo", "echo": {"loadSeconds": 100}}'
WORDS = "one two three four five six seven eight"


def a_request(model: str, text: str = "hi") -> dict[str, Any]:
    said = [{"role": "user", "content": text}]
    return {"model": model, "messages": said, "max_tokens": 4, "temperature": 0}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def models(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    root = tmp_path_factory.mktemp("models")
    (root / "tiny").symlink_to(tiny_model)
    tinymodel.make(root / "org/large", LARGE)
    shutil.copytree(tiny_model, root / "broken")
    weights = (root / "broken/model.safetensors").read_bytes()
    (root / "broken/model.safetensors").write_bytes(weights[:-10])
    for name, told in (("parrot", SLOW % "bird"), ("crow", SLOW % "rook"), ("sloth", SLOTH)):
        (root / name).mkdir()
        (root / name / "pippin.json").write_text(told)
    for name, told in (("ears", '{"engine": "echo", "task": "transcription"}'), ("brush", BRUSH)):
        (root / name).mkdir()
        (root / name / "pippin.json").write_text(told)
    tinywhisper.make(root / "whisper")
    tinydiffusion.make(root / "org/turbo", xl=True, timestep_spacing="trailing")
    shutil.copytree(tiny_model, root / "vectors")
    (root / "vectors/modules.json").write_text("[]")  # as sentence-transformers writes one
    return root


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def several(tmp_path_factory: pytest.TempPathFactory, models: Path) -> AsyncIterator[Running]:
    """Two at once."""
    arguments = ["--models-dir", str(models), "--max-loaded-models", "2", "--engine", "mlx"]
    arguments += ["--max-concurrency", "4"]
    async with started(tmp_path_factory.mktemp("several"), arguments) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def empty(several: Running) -> Running:
    """With no model loaded."""
    for name, status in (await statuses(several)).items():
        if status == "loaded":
            assert (await several.post("/models/unload", {"model": name})).status_code == 200
    return several


def client_of(server: Running) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


async def statuses(server: Running) -> dict[str, str]:
    listed = (await server.get("/v1/models")).json()["data"]
    return {one["id"]: one["status"] for one in listed}


async def known(server: Running, name: str) -> dict[str, Any]:
    found = (await server.get("/status")).json()["models"]["known"]
    (one,) = [each for each in found if each["model"] == name]
    return dict(one)


async def a_stream(client: openai.AsyncOpenAI, model: str, times: int = 1) -> tuple[Any, str]:
    """A stream that has begun and goes on for seconds, and its first word."""
    said: Any = a_request(model, " ".join([WORDS] * times))
    del said["max_tokens"]
    stream = await client.chat.completions.create(**said, stream=True)
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            return stream, chunk.choices[0].delta.content
    raise AssertionError("it ended")


async def test_a_server_is_ready_before_it_has_loaded_anything(empty: Running) -> None:
    assert set((await statuses(empty)).values()) == {"unloaded"}
    health = (await empty.get("/health")).json()
    assert (health["status"], health["model_id"], health["models_loaded"]) == ("ok", None, 0)
    assert (await empty.get("/ready")).status_code == 200
    assert (await empty.get("/livez")).status_code == 200
    told = (await empty.get("/internal/diagnostics")).json()
    assert told["registry_initialized"] is True
    assert (told["models"]["count"], told["models"]["stats"]) == (0, [])
    assert problems((await empty.get("/metrics")).text) == []


async def test_models_are_loaded_when_they_are_first_asked_for(empty: Running) -> None:
    before = (await known(empty, "tiny"))["request_count"]
    async with client_of(empty) as client:
        for name, alias in (("tiny", "tiny"), ("parrot", "bird")):
            answer = await client.chat.completions.create(**a_request(alias))
            assert answer.model == name
        listed = {one.id async for one in client.models.list()}
    assert {"tiny", "org/large", "broken", "parrot", "crow", "sloth"} <= listed
    assert (await statuses(empty))["tiny"] == (await statuses(empty))["parrot"] == "loaded"
    assert (await empty.get("/v1/models/bird")).json()["id"] == "parrot"
    assert (await empty.get("/v1/models/org/large")).json()["status"] == "unloaded"
    stats = (await empty.get("/internal/diagnostics")).json()["models"]["stats"]
    assert {one["model_id"]: one["type"] for one in stats} == {"tiny": "chat", "parrot": "chat"}
    assert all(one["last_access"] and one["created_at"] for one in stats)
    assert (await known(empty, "tiny"))["request_count"] == before + 1


async def test_each_model_does_what_it_is_made_for(empty: Running) -> None:
    async with client_of(empty) as client, empty.client() as plain:
        vectors = await client.embeddings.create(model="vectors", input=["hello", "world"])
        assert len(vectors.data) == 2 and len(vectors.data[0].embedding) == 64
        heard = await client.audio.transcriptions.create(model="ears", file=("a.wav", wav(3)))
        assert heard.text == "1 2 3"
        painted = await client.images.generate(
            model="brush", prompt="a boat", size="256x256", response_format="url"
        )
        url = (painted.data or [])[0].url or ""
        assert (await empty.post("/models/unload", {"model": "brush"})).status_code == 200
        picture = await plain.get(url)  # which is kept, though its model has gone
        assert size(picture.content) == (256, 256)
    refused = await empty.post("/v1/chat/completions", a_request("vectors"))
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "model")


async def test_metrics_are_each_models_own(empty: Running) -> None:
    counted = "pippin_server_requests_total"
    before = await empty.metric(counted, model="tiny", code="200")
    for name in ("tiny", "tiny", "crow"):
        await empty.post("/v1/chat/completions", a_request(name))
    await empty.post("/v1/chat/completions", a_request("nobody"))
    assert await empty.metric(counted, model="tiny", engine="mlx", code="200") == before + 2
    assert await empty.metric(counted, model="", code="404") >= 1
    for loaded in ("pippin_server_models_loaded", "hf_server_models_loaded"):
        assert await empty.metric(loaded) == 2
        assert await empty.metric(loaded, model="crow") == 1
    assert await empty.metric("hf_server_model_load_duration_seconds", model="tiny") > 0
    assert await empty.metric("pippin_server_model_load_bytes", model="tiny") > 10**5
    text = (await empty.get("/metrics")).text
    assert problems(text) == []
    assert "nobody" not in text
    await empty.post("/models/unload", {"model": "tiny"})
    assert await empty.metric("pippin_server_models_loaded", model="tiny") == 0
    assert await empty.metric("pippin_server_model_load_bytes", model="tiny") == 0
    assert await empty.metric(counted, model="tiny", engine="mlx", code="200") == before + 2


async def test_a_name_that_nothing_has_is_not_found(several: Running) -> None:
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/models/load"):
        refused = await several.post(path, {"model": "nobody"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
    async with several.client() as client:
        refused = await client.post(
            "/v1/audio/transcriptions", files={"file": b"x"}, data={"model": "nobody"}
        )
    assert refused.json()["error"]["code"] == "model_not_found"


async def test_what_comes_together_is_loaded_once_and_answered_as_alone(empty: Running) -> None:
    def loads() -> int:
        return sum("model.ready" in line and "tiny" in line for line in empty.log.splitlines())

    before = loads()
    asked = [empty.post("/v1/chat/completions", a_request("tiny")) for _ in range(4)]
    answers = [answer.json() for answer in await asyncio.gather(*asked)]
    assert loads() == before + 1
    said = {answer["choices"][0]["message"]["content"] for answer in answers}
    assert len(said) == 1


async def test_two_models_answer_at_once_as_they_do_alone(empty: Running) -> None:
    async def said(name: str) -> str:
        body = {**a_request(name, "hello big world"), "max_tokens": 8}
        answer = (await empty.post("/v1/chat/completions", body)).json()
        return str(answer["choices"][0]["message"]["content"])

    names = ["tiny", "org/large"]
    alone = [await said(name) for name in names]
    assert alone[0] != alone[1]
    together = await asyncio.gather(*(said(name) for name in names * 3))
    assert list(together) == alone * 3


async def test_a_model_that_streams_stays_and_the_other_makes_room(empty: Running) -> None:
    before = (await known(empty, "tiny"))["evictions"]
    async with client_of(empty) as client:
        stream, text = await a_stream(client, "parrot", times=10)
        await client.chat.completions.create(**a_request("tiny"))  # was used later than parrot
        await client.chat.completions.create(**a_request("org/large"))
        found = await statuses(empty)
        assert (found["parrot"], found["tiny"]) == ("loaded", "unloaded")
        refused = await empty.post("/models/unload", {"model": "parrot"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "model_in_use")
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
            if text.startswith(WORDS):
                break
        await stream.close()
    assert text == WORDS
    assert (await known(empty, "tiny"))["evictions"] == before + 1
    assert await empty.metric("pippin_server_model_evictions_total", model="tiny") == before + 1


async def test_when_all_models_are_in_use_others_are_told_to_come_back(empty: Running) -> None:
    async with client_of(empty) as client:
        streams = [(await a_stream(client, name, times=10))[0] for name in ("parrot", "crow")]
        refused = await empty.post("/v1/chat/completions", a_request("tiny"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        queue = (await empty.get("/v1/queue/stats")).json()
        assert (queue["active"], queue["waiting_for_load"]) == (2, 0)
        for stream in streams:
            await stream.close()

    async def answered() -> bool:  # once the streams' places are free
        answer = await empty.post("/v1/chat/completions", a_request("tiny"))
        return answer.status_code == 200

    await eventually(answered, within=20)


async def test_unloading_gives_the_memory_back(empty: Running) -> None:
    async def resident() -> float:
        found = (await empty.get("/v1/metrics")).json()
        return float(found["memory"]["current_mb"])

    async def come_and_go() -> float:
        loaded = (await empty.post("/models/load", {"model": "org/large"})).json()
        assert (loaded["status"], loaded["load_seconds"] > 0) == ("loaded", True)
        weights = await empty.metric("pippin_server_model_load_bytes", model="org/large") / 2**20
        assert loaded["memory_bytes"] / 2**20 > weights > 80
        await empty.post("/v1/chat/completions", a_request("org/large", "hello " * 100))
        gone = await empty.post("/models/unload", {"model": "org/large"})
        assert (gone.json()["status"], gone.json()["memory_bytes"]) == ("unloaded", 0)
        return weights

    await come_and_go()  # libraries come with the first, and allocators keep some for the next
    before = await resident()
    kept = [await come_and_go() for _ in range(4)]
    assert await resident() - before < sum(kept) / 2
    again = await empty.post("/models/unload", {"model": "org/large"})
    assert again.json()["status"] == "unloaded"


async def test_a_model_that_hears_is_loaded_like_others(empty: Running) -> None:
    async with client_of(empty) as client:
        heard = await client.audio.transcriptions.create(
            model="whisper", file=("a.wav", speech.wav(speech.tone(0.5))), language="en"
        )
    assert isinstance(heard.text, str)
    assert (await known(empty, "whisper"))["memory_bytes"] > 0


async def test_a_model_that_paints_is_loaded_like_others(empty: Running) -> None:
    async with client_of(empty) as client:
        made = await client.images.generate(model="org/turbo", prompt="a fox")
    assert size(base64.b64decode((made.data or [])[0].b64_json or "")) == (64, 64)
    assert (await known(empty, "org/turbo"))["memory_bytes"] > 0


async def test_a_model_that_fails_says_why_and_is_loaded_once_it_is_mended(
    empty: Running, models: Path
) -> None:
    for _ in range(2):
        refused = await empty.post("/v1/chat/completions", a_request("broken"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_failed")
        assert 1 <= int(refused.headers["retry-after"]) <= 10
        message = refused.json()["error"]["message"]
        assert "model.safetensors: its header describes" in message
        assert str(models) not in message
    told = await known(empty, "broken")
    assert told["status"] == "failed" and told["reason"].startswith("ModelCorrupted: ")
    assert (await empty.get("/ready")).status_code == 200
    shutil.copy(models / "tiny/model.safetensors", models / "broken/model.safetensors")
    assert (await empty.post("/models/load", {"model": "broken"})).status_code == 200
    assert (await empty.post("/v1/chat/completions", a_request("broken"))).status_code == 200


async def test_loading_is_asked_for_in_json_and_by_name_only(several: Running) -> None:
    async with several.client() as client:
        plain = await client.post("/models/unload", content=b'{"model": "tiny"}')
        assert plain.status_code == 415
        form = await client.post("/models/unload", data={"model": "tiny"})
        assert form.status_code == 415
    for body in ({"model": "tiny", "force": True}, {}):
        assert (await several.post("/models/unload", body)).status_code == 400


async def test_a_description_names_what_there_is(several: Running) -> None:
    paths = (await several.get("/openapi.json")).json()["paths"]
    assert {"/models/load", "/models/unload", "/v1/chat/completions"} <= paths.keys()
    assert "/internal/echo" not in paths
    assert "requestBody" in paths["/models/load"]["post"]


async def test_an_end_waits_for_answers_and_refuses_who_waits_for_a_model(empty: Running) -> None:
    async with client_of(empty) as client:
        stream, text = await a_stream(client, "crow")
        waits = asyncio.create_task(empty.post("/v1/chat/completions", a_request("sloth")))

        async def on_its_way() -> bool:
            return (await statuses(empty))["sloth"] == "loading"

        await eventually(on_its_way, within=10)
        queue = (await empty.get("/v1/queue/stats")).json()
        assert (queue["active"], queue["waiting_for_load"]) == (1, 1)
        empty.terminate()
        refused = await waits
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
        assert text == WORDS
        assert await empty.exit_code() == 0
