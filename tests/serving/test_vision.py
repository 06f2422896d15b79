"""Pictures in chats, by the official client: they change what is said, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from pippin_server.openai.shown import MAX_PICTURES
from support import pictures, tinyvision
from support.openapi import described
from support.pictures import asked, part, png
from support.servers import Running, mlx_config, serving

pytestmark = pytest.mark.asyncio(loop_scope="package")

GREEDY: dict[str, Any] = {"model": "tiny", "temperature": 0, "max_tokens": 16}
QUESTION = "what is in this picture"


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def eye(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    directory: Path = tmp_path_factory.mktemp("eye")
    model = tinyvision.make(directory / "model")
    async with serving(directory, mlx_config(model, max_concurrency=16)) as running:
        yield running


def a_client(server: Running) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


async def answer(client: openai.AsyncOpenAI, messages: Any, **more: Any) -> tuple[str, int, int]:
    """And the tokens of the prompt, and those of them that were in the prompt cache."""
    made = await client.chat.completions.create(messages=messages, **GREEDY, **more)
    usage = made.usage
    assert usage is not None and usage.prompt_tokens_details is not None
    cached = usage.prompt_tokens_details.cached_tokens or 0
    return made.choices[0].message.content or "", usage.prompt_tokens, cached


async def test_another_picture_gets_another_answer_and_the_same_one_the_same(eye: Running) -> None:
    async with a_client(eye) as client:
        first, tokens, _ = await answer(client, asked(png(1), QUESTION))
        again, _, _ = await answer(client, asked(png(1), QUESTION))
        other, same, _ = await answer(client, asked(png(2), QUESTION))
        nothing, few, _ = await answer(client, asked(QUESTION))
    assert len({first, other, nothing}) == 3
    assert again == first
    # Four tiles and the whole, of 16 tokens each, with a mark before each.
    assert tokens == same >= few + 5 * 16 + 10


async def test_a_second_question_finds_the_picture_in_the_prompt_cache(eye: Running) -> None:
    async with a_client(eye) as client:
        _, tokens, cold = await answer(client, asked(png(3), QUESTION))
        _, _, warm = await answer(client, asked(png(3), "and what colour has it"))
        other, _, none = await answer(client, asked(png(4), QUESTION))
        alone, _, _ = await answer(client, asked(png(4), QUESTION))
    assert cold < 32 and none < 32  # what stands before a picture is the same for all
    assert warm >= 64 and tokens - warm <= 64
    assert other == alone


async def test_answers_in_a_batch_are_those_of_each_alone(eye: Running) -> None:
    chats = [
        asked(png(10 + number % 5), f"question {number} {QUESTION}")
        if number % 2
        else asked(f"question {number} hello world")
        for number in range(14)
    ]
    chats.append(asked("first", png(20), "then", png(21, 48, 80), "which one is red"))
    chats.append([*asked(png(22), QUESTION), {"role": "assistant", "content": "red"}, *asked("no")])
    async with a_client(eye) as client:
        together = await asyncio.gather(*(answer(client, chat) for chat in chats))
        single = [await answer(client, chat) for chat in chats]
    assert [text for text, _, _ in together] == [text for text, _, _ in single]
    assert len({text for text, _, _ in single}) == len(chats)


async def test_a_stream_says_what_an_answer_in_one_piece_says(eye: Running) -> None:
    chat: Any = asked(png(30), QUESTION)
    async with a_client(eye) as client:
        whole, _, _ = await answer(client, chat)
        stream = await client.chat.completions.create(messages=chat, stream=True, **GREEDY)
        said = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(said) == whole and len(said) > 3


async def test_a_rough_look_takes_fewer_tokens(eye: Running) -> None:
    words = {"type": "text", "text": QUESTION}
    rough = [{"role": "user", "content": [part(png(31), detail="low"), words]}]
    async with a_client(eye) as client:
        fine, many, _ = await answer(client, asked(png(31), QUESTION))
        coarse, few, _ = await answer(client, rough)
    assert fine != coarse
    assert many - few >= 4 * 16


async def test_penalties_scores_and_biases_work_beside_a_picture(eye: Running) -> None:
    chat: Any = asked(png(32), QUESTION)
    async with a_client(eye) as client:
        made = await client.chat.completions.create(
            messages=chat, logprobs=True, top_logprobs=2, frequency_penalty=1.0, **GREEDY
        )
        scores = made.choices[0].logprobs
        assert scores is not None and scores.content is not None
        biased, _, _ = await answer(client, chat, logit_bias={"100": 100})
    assert len(scores.content) == GREEDY["max_tokens"]
    assert len(set(biased.split())) == 1


@pytest.mark.parametrize(
    ("content", "where", "words"),
    [
        ([part(b"no picture")], "0.image_url.url", "none of png, jpeg, webp, gif"),
        ([part(png(1)[:200])], "0.image_url.url", "damaged png"),
        ([{"type": "text", "text": "a"}, part(png(1, 4, 2000))], "1.image_url.url", "50 times"),
        ([part(png(1))] * (MAX_PICTURES + 1), f"{MAX_PICTURES}.image_url.url", "17 pictures"),
        ([{"type": "input_audio"}], "0", "image_url"),
    ],
)
async def test_what_is_no_picture_or_too_much_of_it_is_refused_by_its_place(
    eye: Running, content: list[Any], where: str, words: str
) -> None:
    body = {"messages": [{"role": "user", "content": content}], **GREEDY}
    refused = await eye.post("/v1/chat/completions", body)
    assert refused.status_code == 400, refused.text
    error = refused.json()["error"]
    assert error["param"] == f"messages.0.content.{where}"
    assert words in error["message"]


async def test_more_pixels_than_are_decoded_are_refused_before_they_are(eye: Running) -> None:
    large = bytearray(png(1))
    large[16:24] = (6000).to_bytes(4, "big") + (5000).to_bytes(4, "big")
    refused = await eye.post("/v1/chat/completions", {"messages": asked(bytes(large)), **GREEDY})
    assert refused.status_code == 400
    assert "6000 x 5000 pixels, and at most 25000000" in refused.json()["error"]["message"]


async def test_nothing_is_fetched_for_a_request(eye: Running) -> None:
    asked_for = []

    async def called(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked_for.append(1)
        writer.close()

    server = await asyncio.start_server(called, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        url = {"type": "image_url", "image_url": {"url": f"http://127.0.0.1:{port}/a.png"}}
        body = {"messages": [{"role": "user", "content": [url]}], **GREEDY}
        refused = await eye.post("/v1/chat/completions", body)
    assert refused.status_code == 400 and not asked_for
    error = refused.json()["error"]
    assert error["param"] == "messages.0.content.0.image_url.url"
    assert "must be data:image/" in error["message"]


async def test_the_models_own_mark_in_somebodys_words_is_not_taken_for_a_picture(
    eye: Running,
) -> None:
    chat = asked(png(1), f"what is {tinyvision.MARK}")
    refused = await eye.post("/v1/chat/completions", {"messages": chat, **GREEDY})
    assert refused.status_code == 400
    assert tinyvision.MARK in refused.json()["error"]["message"]


async def test_pictures_are_the_users(eye: Running) -> None:
    chat = [{"role": "system", "content": [part(png(1))]}]
    refused = await eye.post("/v1/chat/completions", {"messages": chat, **GREEDY})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "messages.0.content.0"


async def test_a_model_without_eyes_says_so_and_where(tiny: Running) -> None:
    chat = asked("hello", png(1))
    refused = await tiny.post("/v1/chat/completions", {"messages": chat, **GREEDY})
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert error["param"] == "messages.0.content.1.image_url.url"
    assert "reads no pictures" in error["message"]


async def test_what_a_model_reads_is_described(eye: Running, tiny: Running) -> None:
    async def told(server: Running) -> tuple[list[str], bool]:
        card = (await server.get("/v1/models/tiny")).json()
        schemas = (await described(server))["components"]["schemas"]
        return card["input_modalities"], "ImagePart" in schemas

    assert await told(eye) == (["text", "image"], True)
    assert await told(tiny) == (["text"], False)


async def test_the_echo_engine_says_what_it_was_shown(echo: Running) -> None:
    shown = pictures.turned(pictures.encoded(pictures.pixels(1), "jpeg"), 6)
    content = [{"type": "text", "text": "look:"}, part(shown, "jpeg")]
    body = {"model": "echo", "messages": [{"role": "user", "content": content}]}
    made: httpx.Response = await echo.post("/v1/chat/completions", body)
    text = made.json()["choices"][0]["message"]["content"]
    assert text.startswith("look:\n[jpeg 48x80 ")
