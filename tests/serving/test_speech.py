"""What is said is written down: by whisper-base, and quickly by a small one that talks nonsense."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy
import openai
import pytest
import pytest_asyncio
import weights

from support import speech, tinywhisper
from support.eventually import eventually
from support.servers import Running, mlx_config, serving

# Weights are fetched and converted once; a busy machine hears slowly.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

NUMBERS = speech.COUNT_WORDS.split()
HEAR = "/v1/audio/transcriptions"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whisper(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    model: Path = await asyncio.to_thread(weights.prepare, source=weights.WHISPER)
    config = mlx_config(model, model={"task": "transcription"})
    async with serving(tmp_path_factory.mktemp("whisper"), config) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ear(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """Hears a second at a time, one caller after the other."""
    directory = tmp_path_factory.mktemp("ear")
    model = tinywhisper.make(directory / "model")
    config = mlx_config(model, model={"task": "transcription"}, max_concurrency=1)
    async with serving(directory, config) as running:
        yield running


def client_of(server: Running) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0, timeout=300)


def words(text: str) -> str:
    """The model writes numbers either way."""
    found = re.findall(r"\w+", text.lower())
    return " ".join(NUMBERS[int(word) - 1] if word.isdigit() else word for word in found)


async def send(server: Running, file: bytes, **data: str) -> httpx.Response:
    async with server.client() as client:
        return await client.post(HEAR, data={"model": "tiny", **data}, files={"file": file})


async def test_speech_is_written_down_with_its_times_while_the_server_tells_its_health(
    whisper: Running,
) -> None:
    """A model hears half a minute at once: the rest comes from the right place in the file."""
    first, second = speech.samples(speech.HOSPITAL), speech.samples(speech.COUNT)
    gap = speech.silence(32 - len(first) / speech.HERTZ)
    file = ("long.mp3", speech.encoded(numpy.concatenate([first, gap, second]), "mp3"))
    async with client_of(whisper) as client:
        asked = asyncio.create_task(
            client.audio.transcriptions.create(
                model="tiny",
                file=file,
                response_format="verbose_json",
                timestamp_granularities=["word", "segment"],
            )
        )
        told = 0
        while not asked.done():
            told += (await whisper.get("/health")).status_code == 200
            await asyncio.wait({asked}, timeout=0.2)  # it needs the CPU too
        made = await asked
    assert told > 5
    segments = made.segments or []
    begun = " ".join(words(one.text) for one in segments if one.start < 20)
    assert begun == speech.HOSPITAL_WORDS
    assert words(segments[-1].text).endswith(speech.COUNT_WORDS)
    assert 25 < segments[-1].start < 38
    times = [time for one in segments for time in (one.start, one.end)]
    assert times == sorted(times)
    assert 0 <= times[0] and times[-1] <= made.duration
    assert made.language == "en"
    assert made.usage is not None
    assert (made.usage.type, made.usage.seconds) == ("duration", 40)
    check_words(made, speech.spans(second))


def check_words(made: Any, numbers: list[tuple[float, float]]) -> None:
    """`numbers`: where they are heard, 32 seconds before."""
    assert [words(one.word) for one in made.words] == words(made.text).split()
    times = [time for one in made.words for time in (one.start, one.end)]
    assert times == sorted(times)
    assert 0 <= times[0] and times[-1] <= made.duration
    counted = made.words[-len(NUMBERS) :]
    middles = [(one.start + one.end) / 2 for one in counted]
    assert middles == pytest.approx([32 + sum(one) / 2 for one in numbers], abs=0.45)


@pytest.mark.parametrize("codec", speech.CODECS)
async def test_every_common_container_is_heard(ear: Running, codec: str) -> None:
    answer = await send(ear, speech.encoded(speech.tone(1.5), codec), language="en")
    assert answer.status_code == 200
    assert answer.json()["text"]


async def test_a_transcript_has_every_form(ear: Running) -> None:
    file = speech.wav(speech.tone(2.5))
    forms = {
        form: await send(ear, file, language="en", response_format=form)
        for form in ("json", "text", "verbose_json", "srt", "vtt")
    }
    verbose = forms["verbose_json"].json()
    assert forms["json"].json()["text"] == verbose["text"] == forms["text"].text[:-1]
    assert verbose["text"] == "".join(one["text"] for one in verbose["segments"]).strip()
    assert [one["id"] for one in verbose["segments"]] == list(range(len(verbose["segments"])))
    assert verbose["segments"][-1]["end"] <= verbose["duration"] == 2.5
    assert all(one["tokens"] and one["avg_logprob"] < 0 for one in verbose["segments"])
    assert forms["vtt"].text.count(" --> ") == len(verbose["segments"])
    assert forms["srt"].text.startswith("1\n00:00:")


@pytest.mark.parametrize("asked", [["word"], ["word", "segment"]])
async def test_words_have_times_where_they_are_asked_for(ear: Running, asked: list[str]) -> None:
    file = {"file": speech.wav(speech.tone(2.5))}
    data = {"model": "tiny", "language": "en", "response_format": "verbose_json"}
    async with ear.client() as client:
        plain = (await client.post(HEAR, data=data, files=file)).json()
        more = {"timestamp_granularities[]": asked}
        timed = (await client.post(HEAR, data={**data, **more}, files=file)).json()
    assert "words" not in plain
    assert timed["text"] == plain["text"]
    assert ("segments" in timed) == ("segment" in asked)
    found = timed["words"]
    assert "".join("".join(one["word"] for one in found).split()) == "".join(plain["text"].split())
    times = [one[name] for one in found for name in ("start", "end")]
    assert times == sorted(times)
    assert 0 <= times[0] and times[-1] <= 2.5
    for one in timed.get("segments", []):
        within = [word for word in found if one["start"] <= word["start"] < one["end"]]
        assert within and within[-1]["end"] <= one["end"]


async def test_passages_come_as_a_stream(ear: Running) -> None:
    async with client_of(ear) as client:
        stream = await client.audio.transcriptions.create(
            model="tiny", file=("a.wav", speech.wav(speech.tone(3))), stream=True, language="en"
        )
        events: list[Any] = [event async for event in stream]
    assert {event.type for event in events[:-1]} == {"transcript.text.delta"}
    assert len(events) > 2
    assert "".join(event.delta for event in events[:-1]).strip() == events[-1].text
    assert events[-1].usage.input_tokens == 30
    assert events[-1].usage.output_tokens > 0


async def test_the_language_is_found_out_or_told(ear: Running) -> None:
    file = speech.wav(speech.tone(0.5))
    asked = {"response_format": "verbose_json"}
    found = (await send(ear, file, **asked)).json()["language"]
    assert found in tinywhisper.LANGUAGES
    told = (await send(ear, file, **asked, language="de", prompt="Ann, <|endoftext|>")).json()
    assert told["language"] == "de"


async def test_what_cannot_be_done_is_named(ear: Running) -> None:
    good = speech.wav(speech.tone(0.5))
    damaged = bytearray(speech.encoded(speech.tone(2), "flac"))
    damaged[60:] = bytes(len(damaged) - 60)
    for file, data, param, told in (
        (good, {"language": "fr"}, "language", "does not know 'fr', only de, en, yue"),
        (bytes(damaged), {}, "file", "damaged flac"),
        (good[:20], {}, "file", "wav"),
    ):
        answer = await send(ear, file, **data)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["param"] == param
        assert told in error["message"]


async def test_a_caller_who_leaves_frees_the_slot(ear: Running) -> None:
    """There is one slot, and ten minutes of sound take minutes."""
    long = speech.encoded(speech.silence(600), "flac")
    asked: dict[str, Any] = {
        "data": {"model": "tiny", "stream": "true", "language": "en"},
        "files": {"file": long},
    }
    async with ear.client() as client, client.stream("POST", HEAR, **asked) as answer:
        lines = answer.aiter_lines()  # kept: one that is dropped hangs up
        assert "transcript.text.delta" in await anext(lines)
        assert (await ear.metric("pippin_server_requests_in_flight")) == 1

    async def idle() -> bool:
        return (await ear.metric("pippin_server_requests_in_flight")) == 0

    await eventually(idle, within=20)
    assert (await send(ear, speech.wav(speech.tone(0.3)), language="en")).status_code == 200


async def test_damaged_weights_are_named_before_anything_is_loaded(tmp_path: Path) -> None:
    model = tinywhisper.make(tmp_path / "model")
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    config = mlx_config(model, model={"task": "transcription"})
    async with serving(tmp_path, config, wait="no") as server:
        assert await server.exit_code(within=60) == 78
        assert server.termination_message.startswith("ModelCorrupted: model.safetensors: ")
