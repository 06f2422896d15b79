"""Forms and pictures through a real gateway to real echo servers, by the official client."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import orjson
import pytest
import pytest_asyncio

from support.eventually import eventually
from support.gateway import (
    NAMESPACE,
    Running,
    key_object,
    model_object,
    pod_object,
    running_gateway,
)
from support.media import size, wav
from support.servers import echo_config, free_port, serving
from support.upstreams import Turn, answer, upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

HEAR = "/v1/audio/transcriptions"
EDIT = "/v1/images/edits"
CAP = 200_000


@dataclass
class World:
    """A gateway before one server that hears and one that paints."""

    gateway: Running
    ear: str
    hand: str

    @property
    def client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            base_url=f"{self.gateway.url}/v1", api_key=self.gateway.key.key, max_retries=0
        )

    async def hear(self, model: str, **more: Any) -> httpx.Response:
        file = more.pop("file", wav(12.3))
        async with self.gateway.client() as client:
            data = {"model": model, **more}
            return await client.post(HEAR, data=data, files={"file": ("a.wav", file)})

    @property
    def heard(self) -> float:
        """Tokens of sound that the key has used."""
        labels = {"model": f"{NAMESPACE}/ear", "key": f"{NAMESPACE}/app", "kind": "prompt"}
        return self.gateway.metric("pippin_gateway_tokens_total", **labels)

    def log(self, path: str) -> list[dict[str, Any]]:
        lines = [orjson.loads(line) for line in self.gateway.log]
        return [line for line in lines if line["path"] == path]


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    ear = echo_config(aliases=("whisper-1",), served_name="ear", model={"task": "transcription"})
    hand = echo_config(served_name="hand", model={"task": "image"})
    directory = tmp_path_factory.mktemp
    async with (
        serving(directory("ear"), ear) as hears,
        serving(directory("hand"), hand) as paints,
        running_gateway(directory("gateway"), max_media_bytes=CAP) as gateway,
    ):
        found = World(gateway, hears.url, paints.url)
        models = [
            model_object("ear", model={"task": "transcription", "aliases": ["whisper-1"]}),
            model_object("hand", model={"task": "image"}),
            model_object(
                "spare", model={"name": "deaf", "task": "transcription"}, fallbacks=["ear"]
            ),
        ]
        gateway.store.replace("modeldeployments", models)
        connect(found)
        yield found


def connect(world: World, *ear: int) -> None:
    """The replicas of `ear` are these ports, by default the real one."""
    ports = ear or (port_of(world.ear),)
    pods = [pod_object(f"ear-{i}", port, "ear") for i, port in enumerate(ports)]
    pods.append(pod_object("hand-0", port_of(world.hand), "hand"))
    world.gateway.store.replace("pods", pods)
    world.gateway.store.refresh()


async def test_a_recording_is_heard_in_every_form(world: World) -> None:
    numbers = " ".join(map(str, range(1, 14)))
    async with world.client as client:

        async def hear(**more: Any) -> Any:
            return await client.audio.transcriptions.create(
                model="whisper-1", file=("häß.wav", wav(12.3)), **more
            )

        assert (await hear()).text == numbers
        assert str(await hear(response_format="text")) == numbers + "\n"
        assert "00:00:10,000 --> 00:00:12,300" in str(await hear(response_format="srt"))
        assert str(await hear(response_format="vtt")).startswith("WEBVTT\n\n")
        verbose = await hear(response_format="verbose_json", timestamp_granularities=["word"])
        assert (verbose.duration, len(verbose.words)) == (12.3, 13)
        events = [event async for event in await hear(stream=True)]
    assert events[-1].text == numbers
    assert "".join(event.delta for event in events[:-1]) == numbers


async def test_an_answer_keeps_its_type_and_its_tokens_are_counted(world: World) -> None:
    for form, kind in (("srt", "text/plain"), ("vtt", "text/vtt"), ("json", "application/json")):
        before = world.heard
        answer = await world.hear("ear", response_format=form)
        assert answer.headers["content-type"].startswith(kind)
        assert "x-pippin-usage" not in answer.headers
        line = world.log(HEAR)[-1]
        assert (line["prompt_tokens"], line["completion_tokens"]) == (123, 13)
        assert world.heard == before + 123
    await world.hear("ear", stream="true")
    line = world.log(HEAR)[-1]
    assert (line["prompt_tokens"], line["completion_tokens"]) == (123, 13)
    assert line["ttft_ms"] > 0


async def test_a_name_with_its_namespace_reaches_the_server_without_it(world: World) -> None:
    answer = await world.hear(f"{NAMESPACE}/whisper-1")
    assert answer.json()["text"].startswith("1 2 3")


async def test_what_the_server_says_of_a_form_reaches_the_client(world: World) -> None:
    answer = await world.hear("ear", file=b"no sound")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "file"
    wrong = await world.hear("hand")
    assert wrong.status_code == 400
    assert "this model does image, not /v1/audio/transcriptions" in wrong.json()["error"]["message"]


async def test_what_is_wrong_with_a_form_itself_is_said_by_the_gateway(world: World) -> None:
    async with world.gateway.client() as client:
        unnamed = await client.post(HEAR, data={}, files={"file": ("a", b"x")})
        twice = await client.post(
            HEAR, data={"model": ["ear", "hand"]}, files={"file": ("a", b"x")}
        )
        no_form = await client.post(HEAR, json={"model": "ear"})
        too_large = await client.post(
            HEAR, data={"model": "ear"}, files={"file": ("a", bytes(CAP))}
        )
        no_key = await client.post(HEAR, headers={"authorization": ""}, files={"file": ("a", b"")})
    unknown = await world.hear("nobody")
    told = [unnamed, twice, no_form, too_large, no_key, unknown]
    assert [answer.status_code for answer in told] == [400, 400, 415, 413, 401, 404]
    assert [answer.json()["error"]["param"] for answer in told[:2]] == ["model", "model"]


async def test_a_form_goes_to_another_replica_when_one_is_gone(world: World) -> None:
    connect(world, free_port(), port_of(world.ear))
    try:
        texts = [(await world.hear("ear")).json()["text"][:5] for _ in range(3)]
    finally:
        connect(world)
    assert texts == ["1 2 3"] * 3


async def test_a_form_falls_back_to_another_model_under_its_name(world: World) -> None:
    answer = await world.hear("deaf")
    assert answer.json()["text"].startswith("1 2 3")
    assert answer.headers["x-pippin-fallback"].startswith("spare=")


async def test_a_form_reaches_the_replica_as_it_came(world: World) -> None:
    async def script(turn: Turn) -> None:
        await turn.send(answer(b"ok", kind="text/plain"))

    async with upstream(script) as replica:
        connect(world, replica.port)
        try:
            request = httpx.Request(
                "POST", "http://x", data={"model": "ear"}, files={"file": ("ü", b"\0\xff")}
            )
            body = request.read()
            kind = request.headers["content-type"]
            async with world.gateway.client() as client:
                await client.post(HEAR, content=body, headers={"content-type": kind})
        finally:
            connect(world)
    (got,) = replica.requests
    assert (got.body, got.headers["content-type"]) == (body, kind)


async def test_limits_hold_for_forms_and_learn_what_they_take(world: World) -> None:
    store = world.gateway.store
    store.replace("apikeys", [key_object(world.gateway.key, limits={"tpm": 600, "rpm": 3})])
    store.refresh()
    try:
        answers = [await world.hear("ear") for _ in range(4)]
    finally:
        store.replace("apikeys", [key_object(world.gateway.key)])
        store.refresh()
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    left = [answer.headers["x-ratelimit-remaining-requests"] for answer in answers]
    assert left == ["2", "1", "0", "0"]


async def test_pictures_are_made_and_edited(world: World) -> None:
    async with world.client as client:
        made = await client.images.generate(model="hand", prompt="a fox", size="256x256", n=2)
        first, second = [base64.b64decode(one.b64_json or "") for one in made.data or ()]
        edited = await client.images.edit(
            model="hand", prompt="a häß", image=("ü.png", first), mask=second
        )
    assert size(first) == size(second) == (256, 256)
    assert size(base64.b64decode((edited.data or [])[0].b64_json or "")) == (256, 256)
    line = world.log("/v1/images/generations")[-1]
    assert (line["prompt_tokens"], line["completion_tokens"]) == (2, 512)


async def test_a_picture_by_url_is_fetched_at_the_gateway_without_a_key(world: World) -> None:
    async with world.client as client:
        made = await client.images.generate(
            model="hand", prompt="x", size="128x64", response_format="url"
        )
    url = (made.data or [])[0].url or ""
    assert url.startswith(f"{world.gateway.url}/v1/images/files/{NAMESPACE}/hand/hand-0/")
    async with httpx.AsyncClient() as anybody:
        got = await anybody.get(url)
        assert (got.status_code, got.headers["content-type"]) == (200, "image/png")
        assert size(got.content) == (128, 64)
        name = url.rpartition("/")[2]
        for wrong in (
            url[:-6] + "aa.png",
            url.replace("hand-0", "hand-1"),
            url.replace("/hand/", "/nobody/"),
            f"{world.gateway.url}/v1/images/files/{name}",
            url + "/..",
        ):
            missing = await anybody.get(wrong)
            assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
        posted = await anybody.post(url)
        assert (posted.status_code, posted.headers["allow"]) == (405, "GET")
    assert all(name.encode() not in line for line in world.gateway.log)


async def test_the_url_of_a_picture_is_that_of_the_ingress(world: World) -> None:
    wish = {"model": "hand", "prompt": "x", "size": "64x64", "response_format": "url"}
    headers = {"host": "ai.example.com", "x-forwarded-proto": "https"}
    async with world.gateway.client() as client:
        answer = await client.post("/v1/images/generations", json=wish, headers=headers)
    url = answer.json()["data"][0]["url"]
    assert url.startswith(f"https://ai.example.com/v1/images/files/{NAMESPACE}/hand/hand-0/")


async def test_a_replica_that_is_late_with_a_picture_is_not_waited_for(
    tmp_path: Path,
) -> None:
    async def script(turn: Turn) -> None:
        await turn.hang()

    async with (
        upstream(script) as replica,
        running_gateway(tmp_path, total_timeout_seconds=0.5) as gateway,
    ):
        gateway.route(replica.port)
        async with gateway.client(key="") as client:
            path = f"/v1/images/files/{NAMESPACE}/qwen/qwen-0/{'a' * 43}.png"
            answer = await client.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")


async def test_forms_in_memory_have_a_bound_and_leave_it(world: World) -> None:
    """Five that are not whole yet fit, and not the sixth."""
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    head = (
        f"POST {HEAR} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {world.gateway.key.key}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {CAP}\r\n\r\n"
    )
    pairs = [await asyncio.open_connection("127.0.0.1", world.gateway.port) for _ in range(6)]
    try:
        for _, writer in pairs:
            writer.write(head.encode() + part + bytes(CAP * 7 // 10))
        answers = [asyncio.create_task(reader.readline()) for reader, _ in pairs]
        done, left = await asyncio.wait(answers, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result()[:12] for task in done] == [b"HTTP/1.1 503"]
    finally:
        for _, writer in pairs:
            writer.transport.abort()
        await asyncio.gather(*answers, return_exceptions=True)

    async def served() -> bool:
        return (await world.hear("ear", file=wav(6))).status_code == 200

    assert left
    await eventually(served)
