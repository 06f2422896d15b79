"""What keys have used is counted once, whoever restarts."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pippin_contract.usage import KeyUsage, ModelUsage
from pippin_operator.api.apikey import APIKeyStatus
from pippin_operator.status.usage import MOST_MARKS, MOST_MODELS, OTHERS, Reading, derive

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def reading(source: str, model: str = "team-a/qwen", **sums: Any) -> Reading:
    at = sums.pop("at", NOW.timestamp())
    used = ModelUsage(model=model, last_used_at=at, **sums)
    return Reading(source, KeyUsage(uid="u", key="team-a/app", ids={"k1": at}, models=(used,)))


def settled(old: dict[str, Any], *readings: Reading, now: datetime = NOW) -> dict[str, Any]:
    status = derive(old, ["k1"], readings, now)
    APIKeyStatus.model_validate(status)
    return status


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["redis", "gateway-1", "gateway-2"]),
            st.sampled_from(["team-a/qwen", "team-a/small"]),
            st.integers(0, 50),
            st.booleans(),
        ),
        max_size=40,
    )
)
def test_sums_are_what_all_sources_counted_however_often_they_are_read(steps: list[Any]) -> None:
    """A source may be read again without news, or begin anew under another name."""
    lives: Counter[str] = Counter()
    held: dict[tuple[str, str], int] = {}
    true: Counter[str] = Counter()
    status: dict[str, Any] = {}
    for source, model, tokens, restarts in steps:
        if restarts:
            lives[source] += 1
            held = {of: sum_ for of, sum_ in held.items() if of[0] != source}
        held[source, model] = held.get((source, model), 0) + tokens
        true[model] += tokens
        told = [
            reading(f"{name}-{lives[name]}", of, prompt_tokens=sum_)
            for (name, of), sum_ in held.items()
        ]
        status = settled(status, *told)
    found = {one["model"]: one["promptTokens"] for one in status.get("usage", {}).get("models", ())}
    assert found == dict(true)
    assert status.get("usage", {}).get("promptTokens", 0) == true.total()


def test_a_source_that_lost_a_little_takes_nothing_back() -> None:
    status = settled({}, reading("redis", requests=10, prompt_tokens=100))
    status = settled(status, reading("redis", requests=9, prompt_tokens=90))
    status = settled(status, reading("redis", requests=11, prompt_tokens=95))
    assert status["usage"]["requests"] == 12
    assert status["usage"]["promptTokens"] == 105


def test_tokens_of_the_day_begin_anew_at_midnight() -> None:
    status = settled({}, reading("a", prompt_tokens=5, completion_tokens=2))
    assert (status["usage"]["tokensToday"], status["usage"]["window"]) == (7, "2026-01-01")
    tomorrow = NOW + timedelta(days=1)
    status = settled(status, reading("a", prompt_tokens=6, completion_tokens=2), now=tomorrow)
    assert (status["usage"]["tokensToday"], status["usage"]["window"]) == (1, "2026-01-02")
    assert status["usage"]["promptTokens"] == 6


def test_when_it_was_last_used_never_goes_back() -> None:
    status = settled({}, reading("a", requests=1))
    status = settled(status, reading("b", requests=1, at=NOW.timestamp() - 3600))
    assert status["lastUsedAt"] == "2026-01-01T12:00:00Z"
    assert status["usage"]["keys"] == [{"id": "k1", "lastUsedAt": "2026-01-01T12:00:00Z"}]
    gone = derive(status, ["k2"], (), NOW)
    assert gone["usage"]["keys"] == [], "a key that is not good any more is not told"


def test_what_a_status_holds_is_bounded() -> None:
    many = [reading(f"g{i}", f"team-a/m{i}", requests=1) for i in range(MOST_MARKS + 10)]
    usage = settled({}, *many)["usage"]
    assert len(usage["models"]) == MOST_MODELS + 1
    assert usage["requests"] == MOST_MARKS + 10
    others = next(one for one in usage["models"] if one["model"] == OTHERS)
    assert others["requests"] == MOST_MARKS + 10 - MOST_MODELS
    assert len(usage["counted"]) == MOST_MARKS
