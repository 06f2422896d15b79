"""Recordings written down and pictures made by the echo engine, asked by the official client."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from support.eventually import eventually
from support.media import RECORDINGS, size, wav
from support.openapi import described, does_as_described
from support.servers import Running, echo_config, serving, started

pytestmark = pytest.mark.asyncio(loop_scope="module")

HEAR = "/v1/audio/transcriptions"
EDIT = "/v1/images/edits"
PAINT = "/v1/images/generations"
NUMBERS = "1 2 3 4 5 6 7 8 9 10 11 12 13"
MEDIA_CAP = 300_000
KEY = "a key of the tests, long enough to be one"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ear(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """Takes forms of up to 300,000 bytes; slow enough to be left in the middle of an answer."""
    config = echo_config(aliases=("whisper-1",), model={"task": "transcription"})
    env = {"PIPPIN_SERVER_MAX_MEDIA_BYTES": str(MEDIA_CAP)}
    async with serving(tmp_path_factory.mktemp("ear"), config, env=env) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hand(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """Stands alone, with a key, started as in earlier servers."""
    directory = tmp_path_factory.mktemp("hand")
    (directory / "keys").write_text(KEY)
    env = {
        "MODEL_TYPE": "image-generation",
        "PIPPIN_SERVER_API_KEYS_FILE": str(directory / "keys"),
    }
    async with started(directory, ["--engine", "echo"], env=env) as running:
        yield running


def client_of(server: Running) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0, timeout=60)


async def send(server: Running, path: str, data: Any, files: Any) -> httpx.Response:
    async with server.client(headers={"authorization": f"Bearer {KEY}"}) as client:
        return await client.post(path, data=data, files=files)


async def test_a_recording_is_written_down_as_text_with_and_without_json(ear: Running) -> None:
    file = ("häß.wav", wav(12.345))
    async with client_of(ear) as client:
        made = await client.audio.transcriptions.create(model="whisper-1", file=file)
        text = await client.audio.transcriptions.create(
            model="echo", file=file, response_format="text"
        )
    assert made.text == NUMBERS
    assert made.usage is not None
    assert made.usage.model_dump() == {"type": "duration", "seconds": 13}
    assert str(text) == NUMBERS + "\n"


async def test_a_transcript_has_segments_and_words_with_their_times(ear: Running) -> None:
    async with client_of(ear) as client:
        made = await client.audio.transcriptions.create(
            model="echo",
            file=("a.wav", wav(12.345)),
            response_format="verbose_json",
            language="de",
            temperature=0.5,
            timestamp_granularities=["segment", "word"],
        )
    assert (made.duration, made.language, made.text) == (12.345, "de", NUMBERS)
    assert made.segments is not None
    assert [(s.id, s.start, s.end) for s in made.segments] == [(0, 0, 10), (1, 10, 12.345)]
    assert [s.temperature for s in made.segments] == [0.5, 0.5]
    assert "".join(s.text for s in made.segments).strip() == NUMBERS
    assert made.words is not None
    assert [w.word for w in made.words] == NUMBERS.split()
    assert (made.words[-1].start, made.words[-1].end) == (12, 12.345)


@pytest.mark.parametrize("asked", ["word", "segment"])
async def test_a_transcript_has_what_was_asked_for_and_no_more(ear: Running, asked: Any) -> None:
    async with client_of(ear) as client:
        made = await client.audio.transcriptions.create(
            model="echo",
            file=("a.wav", wav(2)),
            response_format="verbose_json",
            timestamp_granularities=[asked],
        )
    assert (made.words is not None, made.segments is not None) == (
        asked == "word",
        asked == "segment",
    )


async def test_subtitles_have_cues_one_after_the_other(ear: Running) -> None:
    file = ("a.wav", wav(12.345))
    async with client_of(ear) as client:
        srt = await client.audio.transcriptions.create(
            model="echo", file=file, response_format="srt"
        )
        vtt = await client.audio.transcriptions.create(
            model="echo", file=file, response_format="vtt"
        )
    cues = [("00:00:00.000 --> 00:00:10.000", "1 2 3 4 5 6 7 8 9 10")]
    cues += [("00:00:10.000 --> 00:00:12.345", "11 12 13")]
    assert str(srt) == "".join(
        f"{number}\n{when.replace('.', ',')}\n{words}\n\n"
        for number, (when, words) in enumerate(cues, start=1)
    )
    assert str(vtt) == "WEBVTT\n\n" + "".join(f"{when}\n{words}\n\n" for when, words in cues)


async def test_a_transcript_comes_as_a_stream_with_its_tokens_at_the_end(ear: Running) -> None:
    async with client_of(ear) as client:
        stream = await client.audio.transcriptions.create(
            model="echo", file=("a.wav", wav(12.3)), stream=True
        )
        events: list[Any] = [event async for event in stream]
    assert [event.type for event in events] == [
        "transcript.text.delta",
        "transcript.text.delta",
        "transcript.text.done",
    ]
    assert "".join(event.delta for event in events[:-1]) == events[-1].text == NUMBERS
    assert (events[-1].usage.input_tokens, events[-1].usage.output_tokens) == (123, 13)
    raw = await send(ear, HEAR, {"model": "echo", "stream": "true"}, {"file": ("a", wav(1))})
    assert raw.headers["content-type"].startswith("text/event-stream")
    assert raw.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("name", sorted(path.name for path in RECORDINGS.iterdir()))
async def test_every_common_container_is_heard(ear: Running, name: str) -> None:
    file = ("upload", (RECORDINGS / name).read_bytes())
    answer = await send(ear, HEAR, {"model": "echo"}, {"file": file})
    assert answer.json()["text"] == "1 2 3"
    assert answer.headers["x-pippin-usage"].endswith("completion=3")


#: A form all the same: a field that asks for nothing.
NO_FILE = {"user": ("me", b"me")}
GOOD = {"file": ("a.wav", wav(1))}
WORDS = {"response_format": "verbose_json", "timestamp_granularities[]": "word"}
WRONG: list[tuple[dict[str, Any], dict[str, Any] | None, str, str]] = [
    ({}, GOOD, "model", "must be given"),
    ({"model": "echo"}, None, "file", "must be given, as a file"),
    ({"model": "echo", "file": "text"}, NO_FILE, "file", "must be a file"),
    ({"model": "echo"}, {"file": ("a.wav", b"")}, "file", "empty file"),
    ({"model": "echo"}, {"file": ("a.wav", b"text")}, "file", "none of wav, mp3, flac, m4a, ogg"),
    ({"model": "echo"}, {"file": ("a.wav", wav(0))}, "file", "without any sound"),
    ({"model": "echo"}, [("file", ("a", b"1")), ("file", ("b", b"2"))], "file", "twice"),  # type: ignore[list-item]
    ({"model": ["echo", "echo"]}, GOOD, "model", "twice"),
    ({"model": "echo", "response_format": "xml"}, GOOD, "response_format", "verbose_json"),
    ({"model": "echo", "response_format": "srt", "stream": "true"}, GOOD, "stream", "not srt"),
    ({"model": "echo", "stream": "maybe"}, GOOD, "stream", "boolean"),
    ({"model": "echo", "temperature": "2"}, GOOD, "temperature", "less than or equal to 1"),
    ({"model": "echo", "language": "German"}, GOOD, "language", "pattern"),
    ({"model": "echo", "bogus": "1"}, GOOD, "bogus", "unknown parameter"),
    ({"model": "echo", "include[]": "logprobs"}, GOOD, "include", "not supported"),
    ({"model": "echo", "known_speaker_names[]": "Ann"}, GOOD, "known_speaker_names", "supported"),
    ({"model": "echo", "chunking_strategy[type]": "server_vad"}, GOOD, "chunking_strategy", "not"),
    ({"model": "echo", "timestamp_granularities[]": "word"}, GOOD, "timestamp_granularities", "go"),
    (
        {"model": "echo", "timestamp_granularities[]": "line"},
        GOOD,
        "timestamp_granularities.0",
        "word",
    ),
    ({"model": "echo", "stream": "true", **WORDS}, GOOD, "stream", "not verbose_json"),
    ({"model": b"\xff"}, GOOD, "model", "UTF-8"),
]


@pytest.mark.parametrize(("data", "files", "param", "words"), WRONG, ids=range(len(WRONG)))
async def test_what_is_wrong_with_a_form_is_named(
    ear: Running, data: dict[str, Any], files: Any, param: str, words: str
) -> None:
    answer = await send(ear, HEAR, data, files or NO_FILE)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param
    assert words in error["message"]


async def test_a_form_that_is_too_large_is_refused_before_it_is_read(ear: Running) -> None:
    answer = await send(ear, HEAR, {"model": "echo"}, {"file": ("a.wav", wav(30))})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "payload_too_large")


async def test_only_forms_are_taken_where_forms_are(ear: Running) -> None:
    answer = await ear.post(HEAR, {"model": "echo"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")
    async with ear.client() as client:
        torn = await client.post(
            HEAR, content=b"--b\r\n", headers={"content-type": "multipart/form-data; boundary=b"}
        )
    assert (torn.status_code, torn.json()["error"]["code"]) == (400, "invalid_multipart")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings", PAINT])
async def test_a_model_that_hears_says_that_it_does_nothing_else(ear: Running, path: str) -> None:
    answer = await ear.post(path, {"model": "echo"})
    assert answer.status_code == 400
    assert f"this model does transcription, not {path}" in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"] == "model"


@pytest.mark.parametrize("path", [HEAR, EDIT])
async def test_a_model_that_chats_says_that_it_takes_no_files(echo: Running, path: str) -> None:
    answer = await send(echo, path, {"model": "echo"}, GOOD)
    assert answer.status_code == 400
    assert f"this model does chat, not {path}" in answer.json()["error"]["message"]
    unknown = await send(echo, path, {"model": "nobody"}, GOOD)
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


async def test_models_tell_what_they_are_for(ear: Running) -> None:
    assert (await ear.get("/v1/models/echo")).json()["task"] == "transcription"


async def test_tokens_of_sound_are_counted(ear: Running) -> None:
    before = await ear.metric("pippin_server_prompt_tokens_total")
    await send(ear, HEAR, {"model": "echo"}, {"file": ("a.wav", wav(2.5))})
    assert await ear.metric("pippin_server_prompt_tokens_total") == before + 25
    counted = await ear.metric("pippin_server_requests_total", endpoint="transcriptions")
    assert counted > 0
    assert '"audio_s":2.5' in await eventually_logged(ear, '"audio_s":2.5')


async def eventually_logged(server: Running, words: str) -> str:
    await eventually(lambda: words in server.access_lines)
    return server.access_lines


async def test_a_caller_who_leaves_frees_the_slot_and_a_stream_that_breaks_ends_with_the_error(
    tmp_path: Path,
) -> None:
    config = echo_config(
        model={"task": "transcription"}, echo={"tokens_per_second": 50}, drain_timeout_seconds=0
    )
    asked: dict[str, Any] = {
        "data": {"model": "echo", "stream": "true"},
        "files": {"file": ("a.wav", wav(600, rate=100))},
    }
    async with serving(tmp_path, config) as server, server.client() as client:
        async with client.stream("POST", HEAR, **asked) as answer:
            lines = answer.aiter_lines()  # kept: one that is dropped hangs up
            assert "transcript.text.delta" in await anext(lines)

        async def idle() -> bool:
            return (await server.metric("pippin_server_requests_in_flight")) == 0

        await eventually(idle, within=10)
        async with client.stream("POST", HEAR, **asked) as answer:
            lines = answer.aiter_lines()
            assert "transcript.text.delta" in await anext(lines)
            server.terminate()
            rest = [line async for line in lines if line]
    assert '"error"' in rest[-1]
    assert "[DONE]" not in rest[-1]


async def test_pictures_come_in_their_size_and_number(hand: Running) -> None:
    async with client_of(hand) as client:
        made = await client.images.generate(
            model="echo", prompt="a red fox", size="512x512", n=3, user="me"
        )
        again = await client.images.generate(model="echo", prompt="a red fox", size="512x512")
        large = await client.images.generate(model="echo", prompt="a red fox")
    assert made.data is not None
    pictures = [base64.b64decode(one.b64_json or "") for one in made.data]
    assert [size(picture) for picture in pictures] == [(512, 512)] * 3
    assert len(set(pictures)) == 3
    assert again.data is not None
    assert base64.b64decode(again.data[0].b64_json or "") == pictures[0]
    assert (made.size, made.output_format) == ("512x512", "png")
    assert made.usage is not None
    assert (made.usage.input_tokens, made.usage.output_tokens) == (3, 3 * 1024)
    assert large.size == "1024x1024"


async def test_a_seed_makes_another_picture_and_the_same_again(hand: Running) -> None:
    async with client_of(hand) as client:
        made = [
            await client.images.generate(
                model="echo", prompt="x", size="256x256", extra_body={"seed": seed}
            )
            for seed in (1, 1, 2)
        ]
    first, same, other = ([one.b64_json for one in answer.data or ()] for answer in made)
    assert first == same != other


async def test_a_picture_by_url_needs_no_key_and_no_luck(hand: Running) -> None:
    async with client_of(hand) as client:
        made = await client.images.generate(
            model="echo", prompt="x", size="256x128", response_format="url", n=2
        )
    urls = [one.url or "" for one in made.data or ()]
    assert all(url.startswith(f"{hand.url}/v1/images/files/") for url in urls)
    async with httpx.AsyncClient() as anybody:
        got = await anybody.get(urls[0])
        assert got.headers["content-type"] == "image/png"
        assert 3500 < int(got.headers["cache-control"].rpartition("=")[2]) <= 3600
        assert size(got.content) == (256, 128)
        missing = await anybody.get(urls[0][:-6] + "aa.png")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
        closed = await anybody.get(f"{hand.url}/v1/models")
        assert closed.status_code == 401
    await eventually_logged(hand, '"path":"/v1/images/files/"')
    assert urls[0].rpartition("/")[2] not in hand.access_lines + hand.log


async def test_pictures_are_edited_and_keep_their_size(hand: Running) -> None:
    async with client_of(hand) as client:
        first = await client.images.generate(model="echo", prompt="x", size="320x240")
        png = base64.b64decode((first.data or [])[0].b64_json or "")
        edited = await client.images.edit(
            model="echo", prompt="with a häß", image=("ü.png", png), mask=("m.png", png)
        )
        several = await client.images.edit(
            model="echo", prompt="both", image=[png, png], size="128x128", n=2
        )
    made = base64.b64decode((edited.data or [])[0].b64_json or "")
    assert size(made) == (320, 240)
    assert made != png
    assert edited.usage is not None
    assert edited.usage.input_tokens_details.image_tokens == 20 * 15
    assert [size(base64.b64decode(one.b64_json or "")) for one in several.data or ()] == [
        (128, 128)
    ] * 2


BAD_WISHES = [
    ({"prompt": ""}, "prompt", "at least 1"),
    ({"prompt": 5}, "prompt", "string"),
    ({"n": 0}, "n", "greater"),
    ({"n": 11}, "n", "less"),
    ({"size": "1000x1000"}, "size", "multiple of 16"),
    ({"size": "16x16"}, "size", "from 64"),
    ({"size": "4096x4096"}, "size", "2048"),
    ({"size": "big"}, "size", "WIDTHxHEIGHT"),
    ({"response_format": "gif"}, "response_format", "b64_json"),
    ({"output_format": "webp"}, "output_format", "not supported"),
    ({"background": "transparent"}, "background", "not supported"),
    ({"quality": "hd"}, "quality", "not supported"),
    ({"stream": True}, "stream", "not supported"),
    ({"style": "vivid"}, "style", "not supported"),
    ({"seed": -1}, "seed", "greater"),
    ({"bogus": 1}, "bogus", "unknown parameter"),
]


@pytest.mark.parametrize(("more", "param", "words"), BAD_WISHES, ids=range(len(BAD_WISHES)))
async def test_what_is_wrong_with_a_wish_is_named(
    hand: Running, more: dict[str, Any], param: str, words: str
) -> None:
    body = {"model": "echo", "prompt": "x", **more}
    async with hand.client(headers={"authorization": f"Bearer {KEY}"}) as client:
        answer = await client.post(PAINT, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert words in answer.json()["error"]["message"]


def png(wide: int, high: int) -> bytes:
    """The beginning of one is all that is looked at."""
    sides = wide.to_bytes(4, "big") + high.to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + sides + bytes(9)


async def test_a_server_that_hears_does_as_it_says(ear: Running) -> None:
    asked = {"data": {"model": "echo"}, "files": GOOD}
    await does_as_described(ear, {HEAR: asked})


async def test_a_form_is_described_as_one(hand: Running) -> None:
    document = await described(hand)
    content = document["paths"][EDIT]["post"]["requestBody"]["content"]
    assert content.keys() == {"multipart/form-data"}
    schema = document["components"]["schemas"]["EditRequest"]
    assert set(schema["required"]) == {"model", "prompt"}
    fields = schema["properties"]
    assert {"image", "image[]", "mask", "seed", "response_format"} <= fields.keys()
    assert fields["n"] == {"type": "integer", "minimum": 1, "maximum": 10, "title": "N"}
    assert fields["output_format"]["enum"] == ["png"]
    assert "svg" not in fields


async def test_a_server_that_paints_does_as_it_says(hand: Running) -> None:
    async with client_of(hand) as client:
        made = await client.images.generate(
            model="echo", prompt="x", size="64x64", response_format="url"
        )
    name = ((made.data or [])[0].url or "").rpartition("/")[2]
    wish = {"model": "echo", "prompt": "x", "size": "64x64"}
    edit = {"data": wish, "files": {"image": ("a.png", png(64, 64))}}
    own = {PAINT: {"json": wish}, EDIT: edit, "/v1/images/files/{name}": {"name": name}}
    await does_as_described(hand, own, KEY)


BAD_EDITS = [
    ({}, [], "image", "must be given"),
    ({}, [("image", ("a", b"text"))], "image", "none of png, jpeg, webp"),
    ({}, [("image", ("a", b""))], "image", "empty"),
    ({}, [("image", ("a", png(0, 9)))], "image", "damaged png"),
    ({}, [("image[]", ("a", png(9, 9)))] * 17, "image", "at most 16"),
    ({}, [("image", ("a", png(9000, 9000)))], "image", "9000x9000: send at most 50000000 pixels"),
    ({}, [("image", ("a", png(9, 9))), ("mask", ("m", png(8, 9)))], "mask", "9x9"),
    ({}, [("image", ("a", png(9, 9)))] + [("mask", ("m", png(9, 9)))] * 2, "mask", "twice"),
    ({"input_fidelity": "high"}, [("image", ("a", png(9, 9)))], "input_fidelity", "not supported"),
    ({"n": "two"}, [("image", ("a", png(9, 9)))], "n", "integer"),
    ({"size": "9x9"}, [("image", ("a", png(9, 9)))], "size", "multiple of 16"),
]


@pytest.mark.parametrize(("data", "files", "param", "words"), BAD_EDITS, ids=range(len(BAD_EDITS)))
async def test_what_is_wrong_with_an_edit_is_named(
    hand: Running, data: dict[str, str], files: Any, param: str, words: str
) -> None:
    said = {"model": "echo", "prompt": "x", **data}
    answer = await send(hand, EDIT, said, files or NO_FILE)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert words in answer.json()["error"]["message"]
