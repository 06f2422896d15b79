"""What another replica's stream becomes for a client that has a part of the answer already."""

from __future__ import annotations

import itertools
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pippin_edge import sse
from pippin_gateway.resume import MOST, Continuation, Told
from pippin_gateway.routing.retry import Failure
from pippin_gateway.upstream.failure import UpstreamFailure

Texts = dict[tuple[int, str], str]


def event(choice: dict[str, Any], number: str = "1") -> bytes:
    return sse.event(
        orjson.dumps({"id": f"chatcmpl-{number}", "created": int(number), "choices": [choice]})
    )


def chat(text: str, index: int = 0, number: str = "1", **more: Any) -> bytes:
    choice = {"index": index, "delta": {"content": text, **more}, "finish_reason": None}
    return event(choice, number)


def end(index: int = 0, number: str = "1") -> bytes:
    return event({"index": index, "delta": {}, "finish_reason": "stop"}, number)


def split(text: str, cuts: list[int]) -> list[str]:
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    return [text[a:b] for a, b in itertools.pairwise(places)]


def texts(stream: bytes) -> Texts:
    told = Told()
    told.add(stream)
    told.read()
    return told.texts


def told(*parts: bytes) -> Told:
    found = Told()
    for part in parts:
        found.add(part)
    return found


@given(
    text=st.text(min_size=1, max_size=60),
    first=st.lists(st.integers(0, 60), max_size=6),
    second=st.lists(st.integers(0, 60), max_size=6),
    died=st.integers(0, 60),
)
def test_nothing_is_missing_and_nothing_comes_twice(
    text: str, first: list[int], second: list[int], died: int
) -> None:
    """However both replicas cut the answer into events, and wherever the first one died."""
    opening = chat("", role="assistant")
    before = [opening, *map(chat, split(text, first))][:died]
    again = [chat("", role="assistant", number="2")]
    again += [chat(piece, number="2") for piece in split(text, second)]
    again += [end(number="2"), sse.DONE]
    rest = Continuation(told(*before))
    whole = b"".join(before) + b"".join(rest.rest(part) for part in again)
    assert texts(whole)[0, "content"] == text
    assert whole.count(b'"role"') == 1 and whole.endswith(sse.DONE)
    if before:
        assert b"chatcmpl-2" not in whole, "one stream has one id"


def test_choices_go_on_each_where_it_was() -> None:
    before = chat("one", 0) + chat("un", 1)
    rest = Continuation(told(before))
    after = rest.rest(chat("on", 0) + chat("une", 1) + chat("e two", 0) + end(1) + end(0))
    assert texts(before + after) == {(0, "content"): "one two", (1, "content"): "une"}


def test_thoughts_and_completions_are_texts_too() -> None:
    thinking = event({"index": 0, "delta": {"reasoning_content": "hm"}, "finish_reason": None})
    assert Continuation(told(thinking)).rest(thinking) == b""
    plain = event({"index": 0, "text": "one two", "logprobs": None, "finish_reason": None})
    half = event({"index": 0, "text": "one", "logprobs": None, "finish_reason": None})
    assert texts(Continuation(told(half)).rest(plain)) == {(0, "text"): " two"}


def test_an_end_that_was_told_is_not_told_again() -> None:
    rest = Continuation(told(chat("one") + end()))
    assert rest.rest(chat("one") + end()) == b""
    usage = sse.event(b'{"choices":[],"usage":{"prompt_tokens":1}}')
    assert b'"usage"' in rest.rest(usage) and rest.rest(sse.DONE) == sse.DONE


@pytest.mark.parametrize(
    "answer",
    [chat("other"), chat("on") + end(), chat("on") + sse.DONE],
    ids=["another word", "ends before", "is done before"],
)
def test_another_answer_is_refused(answer: bytes) -> None:
    with pytest.raises(UpstreamFailure) as failed:
        Continuation(told(chat("one two"))).rest(answer)
    assert failed.value.kind is Failure.DIVERGED


@pytest.mark.parametrize(
    "part",
    [
        chat("x", tool_calls=[{"index": 0}]),
        event({"index": 0, "delta": {"content": "x"}, "logprobs": {"content": []}}),
        event({"index": 0, "text": "x", "logprobs": {"tokens": ["x"]}}),
        chat("x" * (MOST + 1)),
        b"data: no JSON\n\n",
        b"data: []\n\n",
    ],
    ids=["calls", "scores", "scores of a completion", "too long", "no JSON", "no object"],
)
def test_what_is_more_than_text_is_not_continued(part: bytes) -> None:
    found = told(part)
    found.read()
    assert not found.usable


def test_a_long_answer_is_not_kept_as_it_came() -> None:
    found = told(*[chat("word ") for _ in range(5000)])
    assert sum(map(len, found._raw)) < 64 * 1024
    found.read()
    assert found.texts[0, "content"] == "word " * 5000
