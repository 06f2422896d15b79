"""What a request will take, guessed; what it may take, said; and the usage in what passes by."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pippin_edge.limits.claims import Claim, Kind, Verdict
from pippin_gateway import usage
from pippin_gateway.catalog.model import Limits
from pippin_gateway.catalog.objects import Malformed, parse_key, parse_model
from pippin_gateway.limiting.admission import rate_headers
from pippin_gateway.limiting.estimate import COMPLETION, DENSITY, EVERY, Estimator
from pippin_gateway.limiting.shared import by_second
from support.gateway import key_object, model_object

MODEL = "team-a/qwen"


def body(**asked: Any) -> tuple[dict[str, Any], bytes]:
    return asked, orjson.dumps(asked)


def test_a_guess_is_the_prompt_by_its_bytes_and_what_may_be_answered() -> None:
    guess = Estimator()
    asked, sent = body(prompt="x" * 400)
    prompt = int(len(sent) * DENSITY) + 1
    assert guess.prompt(MODEL, sent) == prompt
    assert guess.tokens(MODEL, asked, sent) == prompt + COMPLETION
    for field in ("max_tokens", "max_completion_tokens"):
        assert guess.tokens(MODEL, {**asked, field: 10}, sent) == prompt + 10
    assert guess.tokens(MODEL, {**asked, "max_tokens": 10**6}, sent) == prompt + COMPLETION
    assert guess.tokens(MODEL, {**asked, "max_tokens": 10, "n": 3}, sent) == prompt + 30
    several = {**asked, "max_tokens": 10, "prompt": ["x", "y"]}
    assert guess.tokens(MODEL, several, sent) == prompt + 20
    assert guess.tokens(MODEL, {**several, "prompt": [1, 2, 3]}, sent) == prompt + 10
    assert guess.tokens(MODEL, {"input": "x"}, sent) == prompt


@pytest.mark.parametrize("wrong", ["many", -1, 1.5, None, [], True])
def test_what_makes_no_sense_is_not_believed(wrong: object) -> None:
    """The replica will refuse it."""
    asked, sent = body(prompt="x")
    assert Estimator().tokens(MODEL, {**asked, "max_tokens": wrong, "n": wrong}, sent) >= 1


def test_it_learns_from_the_answers_of_each_model() -> None:
    guess = Estimator()
    asked, sent = body(prompt="x" * 1000)
    for _ in range(100):
        guess.learn(MODEL, asked, sent, prompt=len(sent) // 2, completion=20)
    assert guess.prompt(MODEL, sent) == pytest.approx(len(sent) / 2, rel=0.05)
    assert guess.tokens(MODEL, asked, sent) == guess.prompt(MODEL, sent) + 20
    assert guess.tokens("team-a/other", asked, sent) == int(len(sent) * DENSITY) + 1 + COMPLETION


def test_ninety_five_of_a_hundred_answers_are_not_longer() -> None:
    guess = Estimator()
    asked, sent = body(prompt="x")
    for number in range(EVERY * 6):
        guess.learn(MODEL, asked, sent, prompt=1, completion=number % 100)
    above = guess.tokens(MODEL, asked, sent) - guess.prompt(MODEL, sent)
    assert 88 <= above <= 95


def test_a_picture_does_not_count_by_its_bytes() -> None:
    guess = Estimator()
    data = base64.b64encode(b"x" * 300_000).decode()
    _, sent = body(messages=[{"image_url": {"url": f"data:image/png;base64,{data}"}}])
    assert guess.prompt(MODEL, sent) < 100


def _each(limits: Limits) -> dict[str, int]:
    return {claim.kind: claim.limit for claim in limits.claims}


def test_limits_are_read_from_both_kinds() -> None:
    every = {"rpm": 1, "tpm": 2, "concurrency": 3, "tokensPerDay": 4}
    key, model = parse_key(key_object(None, limits=every)), parse_model(model_object(limits=every))
    assert key and _each(key.principal.limits) == every and key.principal.limits.counts_tokens
    # How many requests a replica takes at once is said to the replica.
    assert model and _each(model.limits) == {"rpm": 1, "tpm": 2}
    plain = parse_key(key_object(None, limits={"rpm": 1}))
    assert plain and not plain.principal.limits.counts_tokens
    with pytest.raises(Malformed, match=r"spec\.limits"):
        parse_key(key_object(None, limits={"rpm": "many"}))


def test_rate_headers_speak_both_dialects() -> None:
    verdict = Verdict(limit=10, remaining=9, reset_after=59.5, wait=0)
    told = [(Claim(kind, "key/a/b", 10), verdict) for kind in Kind]
    assert dict(rate_headers(told, 1000.0)) == {
        b"x-ratelimit-limit-requests": b"10",
        b"x-ratelimit-remaining-requests": b"9",
        b"x-ratelimit-reset-requests": b"59.500s",
        b"x-ratelimit-limit": b"10",
        b"x-ratelimit-remaining": b"9",
        b"x-ratelimit-reset": b"1060",
        b"x-ratelimit-limit-tokens": b"10",
        b"x-ratelimit-remaining-tokens": b"9",
        b"x-ratelimit-reset-tokens": b"59.500s",
    }


def test_what_redis_is_told_later_is_as_old_as_the_youngest_of_its_second() -> None:
    noted = [("rpm/a", 1.9, 2), ("rpm/a", 1.1, 3), ("rpm/a", 0.5, 1), ("rpm/b", 1.0, 0)]
    assert by_second(noted) == [("rpm/a", 5, 1_000_000), ("rpm/a", 1, 0)]


json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=8), json), st.sampled_from(["", " ", "\n\t "]))
def test_a_stream_is_asked_for_its_usage_and_for_nothing_else(more: Any, after: str) -> None:
    asked = {**more, "model": "qwen", "stream": True}
    asked.pop("stream_options", None)
    sent, hidden = usage.ask(orjson.dumps(asked) + after.encode(), asked)
    assert hidden
    assert orjson.loads(sent) == {**asked, "stream_options": {"include_usage": True}}


def test_who_asks_or_does_not_stream_is_left_alone() -> None:
    for asked in (
        {"stream": False},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"stream": True, "stream_options": "nonsense"},
        {"stream": "true"},
    ):
        assert usage.ask(b"as it came", asked) == (b"as it came", False)


FIRST = b'data: {"choices":[{"delta":{"content":"\\"usage\\":null, {"}}],"usage":null}\n\n'
LAST = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n'
DONE = b"data: [DONE]\n\n"


def test_the_event_that_tells_nothing_but_usage_is_left_out() -> None:
    shown = FIRST.replace(b',"usage":null}\n', b"}\n")
    assert usage.hide(FIRST + LAST + DONE) == shown + DONE
    assert usage.hide(LAST) == b""
    assert usage.hide(DONE) == DONE
    with_choices = LAST.replace(b"[]", b'[{"index":0}]')
    assert usage.hide(FIRST + with_choices) == shown + with_choices
    assert usage.find(FIRST + LAST) == usage.Told(3, 4)
