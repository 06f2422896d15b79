"""How likely the tokens of an answer were, with MLX."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import openai
import pytest

from support.servers import Running

ASK: list[Any] = [{"role": "user", "content": "hello world"}]
GREEDY: dict[str, Any] = {"model": "tiny", "messages": ASK, "temperature": 0, "max_tokens": 24}


def a_client(server: Running) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


async def test_each_token_has_its_share_and_the_likeliest(tiny: Running) -> None:
    async with a_client(tiny) as client:
        answer = await client.chat.completions.create(**GREEDY, logprobs=True, top_logprobs=3)
    (choice,) = answer.choices
    assert choice.logprobs is not None and choice.logprobs.content is not None
    tokens = choice.logprobs.content
    assert len(tokens) == 24
    assert b"".join(bytes(token.bytes or ()) for token in tokens).decode() == choice.message.content
    for token in tokens:
        shares = [top.logprob for top in token.top_logprobs]
        assert len(shares) == 3 and shares == sorted(shares, reverse=True)
        assert token.logprob == pytest.approx(shares[0])  # greedy
        assert 0 < sum(map(math.exp, shares)) <= 1


async def test_a_stream_tells_the_same(tiny: Running) -> None:
    async with a_client(tiny) as client:
        whole = await client.chat.completions.create(**GREEDY, logprobs=True, top_logprobs=1)
        stream = await client.chat.completions.create(
            **GREEDY, logprobs=True, top_logprobs=1, stream=True
        )
        streamed = [
            token
            async for chunk in stream
            if chunk.choices[0].logprobs is not None
            for token in chunk.choices[0].logprobs.content or ()
        ]
    assert whole.choices[0].logprobs is not None
    assert [token.token for token in streamed] == [
        token.token for token in whole.choices[0].logprobs.content or ()
    ]


async def test_a_row_that_asks_changes_no_other_and_none_that_does_not_gets_any(
    tiny: Running,
) -> None:
    async with a_client(tiny) as client:

        async def ask(**options: Any) -> Any:
            return (await client.chat.completions.create(**{**GREEDY, **options})).choices[0]

        alone = await ask(logprobs=True)
        mixed = await asyncio.gather(
            *(ask(logprobs=True), ask(), ask(logprobs=True, top_logprobs=5)),
            *(ask(messages=[{"role": "user", "content": f"other {n}"}]) for n in range(4)),
        )
    assert {choice.message.content for choice in mixed[:3]} == {alone.message.content}
    assert mixed[1].logprobs is None and mixed[4].logprobs is None
    expected = [token.logprob for token in alone.logprobs.content]
    assert [t.logprob for t in mixed[0].logprobs.content] == pytest.approx(expected, abs=1e-3)
    assert all(token.top_logprobs == [] for token in mixed[0].logprobs.content)


async def test_a_sampled_token_need_not_be_among_the_likeliest(tiny: Running) -> None:
    async with a_client(tiny) as client:
        answer = await client.chat.completions.create(
            **{**GREEDY, "temperature": 2}, seed=3, logprobs=True, top_logprobs=1
        )
    assert answer.choices[0].logprobs is not None
    tokens = answer.choices[0].logprobs.content or []
    assert all(token.logprob <= token.top_logprobs[0].logprob + 1e-6 for token in tokens)
    assert any(token.logprob < token.top_logprobs[0].logprob - 1e-3 for token in tokens)


async def test_a_stop_is_not_told_in_them_either(tiny: Running) -> None:
    async with a_client(tiny) as client:
        whole = (await client.chat.completions.create(**GREEDY)).choices[0].message.content
        assert whole is not None
        stop = whole[10:14]
        cut = await client.chat.completions.create(**GREEDY, stop=[stop], logprobs=True)
    assert cut.choices[0].logprobs is not None
    told = "".join(token.token for token in cut.choices[0].logprobs.content or ())
    assert stop not in told
    assert (cut.choices[0].message.content or "").startswith(told)


async def test_completions_tell_them_in_their_own_form(tiny: Running) -> None:
    async with a_client(tiny) as client:
        answer = await client.completions.create(
            model="tiny", prompt="hello", temperature=0, max_tokens=8, logprobs=2
        )
    (choice,) = answer.choices
    found = choice.logprobs
    assert found is not None
    assert found.tokens is not None and found.text_offset is not None
    assert "".join(found.tokens) == choice.text
    assert found.text_offset[0] == 0
    assert found.text_offset[-1] + len(found.tokens[-1]) == len(choice.text)
    assert found.token_logprobs is not None and all(share <= 0 for share in found.token_logprobs)
    assert found.top_logprobs is not None and all(len(top) <= 2 for top in found.top_logprobs)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": 3}, "logprobs"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    tiny: Running, options: dict[str, Any], param: str
) -> None:
    answer = await tiny.post("/v1/chat/completions", {**GREEDY, **options})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
