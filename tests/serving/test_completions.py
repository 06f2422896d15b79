"""POST /v1/completions: several prompts, token ids, and prompts that come back."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from support.servers import Running

pytestmark = pytest.mark.asyncio(loop_scope="package")

TEXTS = ["hello big world", "the model", "one two three four"]


def a_client(server: Running) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


async def complete(server: Running, **body: Any) -> Any:
    """The answer; of a stream its chunks."""
    name = "tiny" if body.pop("tiny", False) else "echo"
    async with a_client(server) as client:
        answer = await client.completions.create(model=name, **body)
        return [chunk async for chunk in answer] if body.get("stream") else answer


async def test_several_prompts_are_answered_in_their_order(echo: Running) -> None:
    answer = await complete(echo, prompt=TEXTS, n=2)
    assert [choice.index for choice in answer.choices] == list(range(6))
    assert [choice.text for choice in answer.choices] == [t for t in TEXTS for _ in range(2)]
    assert answer.usage.prompt_tokens == 3 + 2 + 4, "each prompt counts once"
    assert answer.usage.completion_tokens == 2 * (3 + 2 + 4)


async def test_together_they_say_what_each_says_alone(tiny: Running) -> None:
    asked: dict[str, Any] = {"tiny": True, "temperature": 0, "max_tokens": 8}
    alone = [(await complete(tiny, prompt=text, **asked)) for text in TEXTS]
    together = await complete(tiny, prompt=TEXTS, **asked)
    assert [c.text for c in together.choices] == [one.choices[0].text for one in alone]
    assert together.usage.prompt_tokens == sum(one.usage.prompt_tokens for one in alone)
    assert together.usage.completion_tokens == 24


async def test_a_stream_has_every_prompt_to_its_end(tiny: Running) -> None:
    asked: dict[str, Any] = {"tiny": True, "prompt": TEXTS, "n": 2, "seed": 3, "max_tokens": 6}
    whole = await complete(tiny, **asked)
    texts, ends, usage = [""] * 6, [""] * 6, None
    stream = await complete(tiny, **asked, stream=True, stream_options={"include_usage": True})
    for chunk in stream:
        usage = chunk.usage
        for choice in chunk.choices:
            assert not ends[choice.index]
            texts[choice.index] += choice.text
            ends[choice.index] = choice.finish_reason or ""
    assert texts == [choice.text for choice in whole.choices]
    assert ends == ["length"] * 6
    assert usage.prompt_tokens == whole.usage.prompt_tokens
    assert usage.completion_tokens == whole.usage.completion_tokens == 36


async def test_prompts_may_be_tokens(tiny: Running) -> None:
    asked: dict[str, Any] = {"tiny": True, "temperature": 0, "max_tokens": 5}
    one = await complete(tiny, prompt=[40, 41, 42], **asked)
    several = await complete(tiny, prompt=[[40, 41, 42], [50, 51]], **asked)
    assert one.usage.prompt_tokens == 3 and several.usage.prompt_tokens == 5
    assert several.choices[0].text == one.choices[0].text


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"prompt": ["fine", ""]}, "prompt", "the prompt is empty"),
        ({"prompt": ["fine", "hello " * 600]}, "prompt", "prompt 1: the context"),
        ({"prompt": [[1, 2], [99999]]}, "prompt", "token 99999"),
        ({"prompt": []}, "prompt", ""),
        ({"prompt": [[]]}, "prompt", ""),
        ({"prompt": [[True]]}, "prompt", ""),
        ({"prompt": [[1], 2]}, "prompt", ""),
        ({"prompt": ["x"] * 9, "n": 16}, "prompt", "9 prompts with 16 answers each"),
        ({"prompt": "x", "suffix": "end"}, "suffix", "continues texts and fills none in"),
        ({"prompt": "x", "max_tokens": 0}, "max_tokens", "unless 'echo'"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_cannot_be_done_is_told_before_anything(
    tiny: Running, body: dict[str, Any], param: str, words: str, stream: bool
) -> None:
    answer = await tiny.post("/v1/completions", {"model": "tiny", "stream": stream, **body})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"].startswith(param) and words in error["message"]


async def test_the_prompt_comes_back_before_the_answer(tiny: Running) -> None:
    asked: dict[str, Any] = {"tiny": True, "temperature": 0, "max_tokens": 6}
    plain = await complete(tiny, prompt=TEXTS, **asked)
    echoed = await complete(tiny, prompt=TEXTS, echo=True, **asked)
    expected = [text + c.text for text, c in zip(TEXTS, plain.choices, strict=True)]
    assert [choice.text for choice in echoed.choices] == expected
    assert echoed.usage.prompt_tokens == plain.usage.prompt_tokens
    assert echoed.usage.completion_tokens == 18, "what comes back was not made"
    texts = ["", "", ""]
    for chunk in await complete(tiny, prompt=TEXTS, echo=True, stream=True, **asked):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == expected


async def test_a_prompt_alone_comes_back(tiny: Running, echo: Running) -> None:
    for server in (tiny, echo):
        body = {"prompt": "hello big world", "echo": True, "max_tokens": 0}
        answer = await complete(server, tiny=server is tiny, **body)
        assert answer.choices[0].text == "hello big world"
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.completion_tokens == 0 and answer.usage.prompt_tokens > 0


async def test_tokens_come_back_as_their_text(tiny: Running) -> None:
    body: dict[str, Any] = {"tiny": True, "prompt": [300, 301, 302], "echo": True, "max_tokens": 0}
    (plain,) = (await complete(tiny, **body)).choices
    (scored,) = (await complete(tiny, **body, logprobs=0)).choices
    assert plain.text == scored.text == "".join(scored.logprobs.tokens)


async def test_shares_of_a_prompt_are_those_that_its_tokens_had_when_they_were_made(
    tiny: Running,
) -> None:
    asked: dict[str, Any] = {"tiny": True, "temperature": 0, "logprobs": 2}
    forced = {"50": 100}  # shares are the model's own, whatever a request does to the logits
    made = await complete(tiny, prompt=[40, 41, 42], max_tokens=40, logit_bias=forced, **asked)
    tokens = [40, 41, 42] + [50] * 40
    (back,) = (await complete(tiny, prompt=tokens, echo=True, max_tokens=0, **asked)).choices
    told, answer = back.logprobs, made.choices[0].logprobs
    assert told.tokens[3:] == answer.tokens
    assert told.token_logprobs[3:] == pytest.approx(answer.token_logprobs, abs=1e-3)
    assert max(told.token_logprobs[1:]) < 0 and len(set(told.token_logprobs)) > 10
    assert told.token_logprobs[0] is None and told.top_logprobs[0] is None
    assert all(len(top) == 2 for top in told.top_logprobs[1:])
    for offset, token in zip(told.text_offset, told.tokens, strict=True):
        assert back.text[offset : offset + len(token)] == token


async def test_shares_of_prompt_and_answer_come_together_in_a_stream_too(tiny: Running) -> None:
    asked: dict[str, Any] = {
        **{"tiny": True, "prompt": ["hello big world", "the model"], "echo": True},
        **{"temperature": 0, "max_tokens": 5, "logprobs": 1},
    }
    whole = await complete(tiny, **asked)
    shares: list[list[float | None]] = [[], []]
    offsets: list[list[int]] = [[], []]
    for chunk in await complete(tiny, **asked, stream=True):
        (choice,) = chunk.choices
        if choice.logprobs is not None:
            shares[choice.index] += choice.logprobs.token_logprobs
            offsets[choice.index] += choice.logprobs.text_offset
    for index, choice in enumerate(whole.choices):
        assert shares[index][1:] == pytest.approx(choice.logprobs.token_logprobs[1:], abs=1e-3)
        assert shares[index][0] is choice.logprobs.token_logprobs[0] is None
        assert offsets[index] == choice.logprobs.text_offset


async def test_a_long_prompts_shares_do_not_stop_others(tiny: Running) -> None:
    """Scores of 400 tokens in pieces are those of all at once, whoever else is served."""
    body: dict[str, Any] = {"prompt": [40 + n % 300 for n in range(400)], "echo": True}
    first = await complete(tiny, **body, tiny=True, max_tokens=1, logprobs=0)
    second = await complete(tiny, **body, tiny=True, max_tokens=0, logprobs=3)
    one, two = (answer.choices[0].logprobs.token_logprobs for answer in (first, second))
    assert len(one) == 401 and one[1:400] == pytest.approx(two[1:], abs=1e-3)
