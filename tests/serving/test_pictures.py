"""Pictures by a small diffusion model that paints nonsense, asked by the official client."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy
import openai
import pytest
import pytest_asyncio

from support import tinydiffusion
from support.eventually import eventually
from support.media import picture, pixels, size
from support.servers import Running, mlx_config, serving, started

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAINT, EDIT = "/v1/images/generations", "/v1/images/edits"
STEPS = ("--steps", "2")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tinydiffusion.make(tmp_path_factory.mktemp("painter") / "model")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hand(tmp_path_factory: pytest.TempPathFactory, model: Path) -> AsyncIterator[Running]:
    """Started as in earlier servers."""
    arguments = ["--engine", "mlx", "--model", str(model), "--name", "tiny"]
    arguments += [f"--engine-arg={argument}" for argument in STEPS]
    env = {"MODEL_TYPE": "image-generation"}
    async with started(tmp_path_factory.mktemp("hand"), arguments, env=env) as running:
        yield running


def client_of(server: Running) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0, timeout=60)


async def paint(server: Running, prompt: str = "a red fox", **told: Any) -> list[bytes]:
    async with client_of(server) as client:
        made = await client.images.generate(model="tiny", prompt=prompt, **told)
    return files(made)


def files(made: Any) -> list[bytes]:
    return [base64.b64decode(one.b64_json or "") for one in made.data or ()]


def noise(high: int, wide: int, channels: int = 3) -> Any:
    numbers = numpy.random.default_rng(1)
    return numbers.integers(0, 255, (high, wide, channels), dtype=numpy.uint8)


async def test_pictures_come_in_the_size_and_number_that_was_asked_for(hand: Running) -> None:
    async with client_of(hand) as client:
        made = await client.images.generate(model="tiny", prompt="the cat", size="96x64", n=2)
    assert [size(file) for file in files(made)] == [(96, 64)] * 2
    assert len(set(files(made))) == 2
    assert made.usage is not None
    # Two words, and the two marks.
    assert (made.usage.input_tokens, made.usage.output_tokens) == (4, 2 * 24)
    (natural,) = await paint(hand)
    assert size(natural) == (64, 64)


async def test_a_seed_makes_the_same_picture_and_none_makes_another(hand: Running) -> None:
    seeded = {"extra_body": {"seed": 5}}
    first = await paint(hand, n=2, **seeded)
    assert await paint(hand, **seeded) == first[:1]
    assert await paint(hand, extra_body={"seed": 6}) == first[1:]
    assert await paint(hand, "a blue fox", **seeded) != first[:1]
    assert await paint(hand) != await paint(hand)


async def test_an_edit_keeps_what_the_mask_keeps(hand: Running) -> None:
    before = noise(64, 80)
    mask = numpy.dstack([before, numpy.full((64, 80), 255, dtype=numpy.uint8)])
    mask[16:48, :40, 3] = 0
    kept = mask[..., 3] == 255
    async with client_of(hand) as client:
        edited = await client.images.edit(
            model="tiny",
            prompt="a hat",
            image=("a.png", picture(before)),
            mask=("m.png", picture(mask)),
            size="80x64",
        )
        free = await client.images.edit(
            model="tiny", prompt="a hat", image=("a.webp", picture(before, "webp")), size="64x64"
        )
    after = pixels(files(edited)[0])
    assert after.shape == before.shape
    assert numpy.array_equal(after[kept], before[kept])
    assert not numpy.array_equal(after[~kept], before[~kept])
    assert size(files(free)[0]) == (64, 64)


async def test_a_large_picture_is_edited_in_a_size_that_the_model_is_good_at(
    hand: Running,
) -> None:
    async with client_of(hand) as client:
        made = await client.images.edit(
            model="tiny", prompt="a hat", image=("a.jpg", picture(noise(300, 400), "mjpeg"))
        )
    wide, high = size(files(made)[0])
    assert wide * high <= 64 * 80


WISHES: list[tuple[dict[str, Any], str, str]] = [
    ({"size": "1024x1024"}, "size", "this model makes up to 16384 here, best 64x64"),
    ({"size": "70x70"}, "size", "multiple of 16 from 64 to 2048"),
    ({"prompt": "x" * 40}, "prompt", "the context of this model is 24 tokens"),
]


@pytest.mark.parametrize(("told", "param", "words"), WISHES, ids=range(len(WISHES)))
async def test_a_wish_that_cannot_be_had_is_refused_naming_its_field(
    hand: Running, told: dict[str, Any], param: str, words: str
) -> None:
    answer = await hand.post(PAINT, {"model": "tiny", "prompt": "x", **told})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert words in answer.json()["error"]["message"]


GOOD = picture(noise(64, 64))
FORMS: list[tuple[list[tuple[str, bytes]], str, str]] = [
    ([("image", GOOD[:3000])], "image", "'image' is a damaged png"),
    ([("image[]", GOOD), ("image[]", GOOD)], "image", "this model changes one picture"),
    ([("image", GOOD), ("mask", GOOD)], "mask", "'mask' has no transparent part"),
    ([("image", GOOD), ("mask", GOOD[:3000])], "mask", "'mask' is a damaged png"),
]


@pytest.mark.parametrize(("sent", "param", "words"), FORMS, ids=range(len(FORMS)))
async def test_a_file_that_is_no_use_is_refused_naming_its_field(
    hand: Running, sent: list[tuple[str, bytes]], param: str, words: str
) -> None:
    parts = [(name, ("a.png", content)) for name, content in sent]
    async with hand.client() as client:
        answer: httpx.Response = await client.post(
            EDIT, data={"model": "tiny", "prompt": "x"}, files=parts
        )
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert words in answer.json()["error"]["message"]


async def test_a_caller_who_leaves_frees_the_engine_between_two_steps(
    model: Path, tmp_path: Path
) -> None:
    """A thousand steps take a minute."""
    config = mlx_config(
        model, model={"task": "image"}, engine_args=("--steps", "1000"), max_concurrency=1
    )
    async with serving(tmp_path, config) as server:
        asked = asyncio.create_task(server.post(PAINT, {"model": "tiny", "prompt": "x"}))

        async def busy() -> bool:
            return await server.metric("pippin_server_batch_size") == 1

        async def idle() -> bool:
            return await server.metric("pippin_server_batch_size") == 0

        await eventually(busy, within=20)
        asked.cancel()
        await eventually(idle, within=20)
        assert (await server.metric("pippin_server_requests_in_flight")) == 0


async def test_damaged_weights_are_named_before_anything_is_loaded(tmp_path: Path) -> None:
    model = tinydiffusion.make(tmp_path / "model")
    file = model / "unet/diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    config = mlx_config(model, model={"task": "image"})
    async with serving(tmp_path, config, wait="no") as server:
        assert await server.exit_code(within=60) == 78
        said = "ModelCorrupted: unet/diffusion_pytorch_model.safetensors: its header describes"
        assert server.termination_message.startswith(said)
