"""Stop sequences: found however the text is cut into tokens, and never shown in part."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pippin_server.engines.stops import StopFilter


def shown(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    stop_filter = StopFilter(stops)
    text = ""
    for piece in pieces:
        part, met = stop_filter.feed(piece)
        text += part
        if met:
            return text, True
    return text + stop_filter.flush(), False


@pytest.mark.parametrize(
    ("pieces", "stops", "expected"),
    [
        (["hello STOP world"], ["STOP"], ("hello ", True)),
        (["hello ST", "OP world"], ["STOP"], ("hello ", True)),
        (["S", "T", "O", "P"], ["STOP"], ("", True)),
        (["S", "T", "O"], ["STOP"], ("STO", False)),
        (["SSTOP"], ["STOP"], ("S", True)),
        (["S", "S", "TOP"], ["STOP"], ("S", True)),
        (["abab", "ac"], ["abac"], ("ab", True)),
        (["one two"], ["two", "one t"], ("", True)),
        (["x\n", "\ny"], ["\n\n"], ("x", True)),
        (["nothing"], [], ("nothing", False)),
    ],
)
def test_text_ends_before_the_first_stop(
    pieces: list[str], stops: list[str], expected: tuple[str, bool]
) -> None:
    assert shown(pieces, stops) == expected


LETTERS = st.text(alphabet="ab", max_size=12)


@given(st.lists(LETTERS, max_size=8), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_any_cutting_shows_what_the_whole_text_would(pieces: list[str], stops: list[str]) -> None:
    text, met = shown(pieces, stops)
    whole = "".join(pieces)
    assert whole.startswith(text)
    assert met == any(stop in whole for stop in stops)
    if not met:
        assert text == whole
    assert not any(stop in text for stop in stops)


def test_what_cannot_become_a_stop_is_shown_at_once() -> None:
    assert StopFilter(["STOP"]).feed("hello") == ("hello", False)
    assert StopFilter(["STOP"]).feed("so S") == ("so ", False)
