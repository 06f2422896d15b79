"""What the status says of those that shall answer instead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pippin_operator.status.fallbacks import judge

CHAT, EMBEDDING = "chat", "embedding"


@pytest.mark.parametrize(
    ("models", "reason", "words"),
    [
        ({"a": ()}, "NoneGiven", ""),
        ({"a": ("b",), "b": ()}, "AllFound", ""),
        ({"a": ("b", "x", "y"), "b": ()}, "FallbackNotFound", "x, y"),
        ({"a": ("b",), "b": ("a",)}, "FallbackCycle", "a → b → a"),
        ({"a": ("b", "c"), "b": (), "c": ("d",), "d": ("a",)}, "FallbackCycle", "a → c → d → a"),
        # Not its own circle: those in it say so.
        ({"a": ("b",), "b": ("c",), "c": ("b",)}, "AllFound", ""),
    ],
)
def test_the_reason(models: dict[str, tuple[str, ...]], reason: str, words: str) -> None:
    verdict = judge("a", lambda name: (CHAT, models[name]) if name in models else None)
    assert verdict.reason == reason
    assert words in verdict.message
    assert verdict.status == ("True" if reason in ("NoneGiven", "AllFound") else "False")


def test_one_that_does_something_else() -> None:
    models = {"a": (CHAT, ("b",)), "b": (EMBEDDING, ())}
    assert judge("a", models.get).reason == "FallbackTaskDiffers"


NAMES = st.sampled_from("abcdef")


@given(st.dictionaries(NAMES, st.lists(NAMES, max_size=4).map(tuple)))
def test_it_ends_and_a_cycle_is_told_exactly_by_those_in_it(
    links: dict[str, tuple[str, ...]],
) -> None:
    full = {name: links.get(name, ()) for name in "abcdef"}
    reached, frontier = set[str](), set(full["a"])
    while frontier:
        reached |= frontier
        frontier = {other for name in frontier for other in full[name]} - reached
    verdict = judge("a", lambda name: (CHAT, full[name]))
    assert (verdict.reason == "FallbackCycle") == ("a" in reached)
