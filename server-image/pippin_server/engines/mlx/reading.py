"""What a model writes, as it comes: thoughts, calls and words, told apart by the family's marks.

mlx_lm's TextStateMachine finds the marks, also where tokens split them, and holds back what may
become one. White space beside a mark belongs to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mlx_lm.generate import TextStateMachine

from ..base import Call, Delta, Finish, Score
from ..stops import StopFilter

#: Characters of a call; parsers with regular expressions see no more.
_MOST = 1 << 18

#: From the text between the marks of calls to what the family's parser found in it.
Parser = Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Marks:
    """Around calls; families without an end write calls to the end of the answer."""

    start: str
    end: str
    parse: Parser
    #: Of the functions that may be called: whatever else a model calls is words of its own.
    names: frozenset[str]
    parallel: bool

    def calls(self, text: str) -> list[Call]:
        """What stands between the marks; nothing where it makes no sense."""
        if len(text) > _MOST:
            return []
        try:
            found = self.parse(text)
            listed = found if isinstance(found, list) else [found]
            calls = [_call(one, self.names) for one in listed]
        except Exception:  # a parser for each family, and what a model wrote: anything is raised
            return []
        return calls if self.parallel else calls[:1]


def _call(found: Any, names: frozenset[str]) -> Call:
    """Raises what a parser may."""
    arguments = found.get("arguments")
    if isinstance(arguments, str):
        arguments = json.loads(arguments)
    if found["name"] not in names or not isinstance(arguments, dict | None):
        raise ValueError("no call of a function that was offered")
    text = json.dumps(arguments or {}, ensure_ascii=False, allow_nan=False)
    text.encode()  # half a surrogate is no text
    # Some families number their calls, and want to find the number in the next prompt.
    number = found.get("id")
    return Call(found["name"], text, number if isinstance(number, str) else "")


@dataclass(slots=True)
class _Shown:
    """What one delta shows."""

    text: str = ""
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)


class Reader:
    """Of one answer. `state` is mlx_lm's, in which the answer begins; `stops` end words, and
    neither thoughts nor calls."""

    def __init__(
        self,
        machine: TextStateMachine,
        state: str,
        marks: Marks | None = None,
        stops: Sequence[str] = (),
    ) -> None:
        self._machine = machine.make_state(state)
        self._state = state
        self._marks = marks
        self._stops = StopFilter(stops)
        self._call: list[str] = []
        #: White space that is shown once something follows it that is no mark.
        self._gap: list[str] = []
        self._after_mark = False
        self._called = False
        self._ids: set[str] = set()
        self._scores: list[tuple[Score, ...]] = []

    def read(self, deltas: Sequence[Delta]) -> list[Delta]:
        """The same steps, told apart, up to the end of the answer."""
        found = []
        for delta in deltas:
            found.append(self._read(delta))
            if found[-1].finish is not None:
                break
        return found

    def _read(self, delta: Delta) -> Delta:
        """The answer ends after the only call that is allowed, or at a stop."""
        shown = _Shown()
        self._scores += delta.scores
        self._split(delta.text, shown)
        finish = delta.finish
        if finish is not None and not self._is_enough():
            self._end(shown, finish)
        shown.text, met = self._stops.feed(shown.text)
        if met:
            finish = "stop"
        elif finish is not None:
            shown.text += self._stops.flush()
        if self._is_enough() or (self._called and finish == "stop"):
            finish = "tool_calls"
        return replace(
            delta,
            text=shown.text,
            reasoning=shown.reasoning,
            calls=tuple(shown.calls),
            finish=finish,
            scores=self._told(shown, ended=finish is not None),
        )

    def _split(self, text: str, shown: _Shown) -> None:
        self._machine, pieces = TextStateMachine.split(self._machine, text)
        for number, (state, piece) in enumerate(pieces):
            if number:  # between two pieces stood a mark
                self._cross(state, shown)
            if self._is_enough():
                return
            self._take(piece, shown)

    def _end(self, shown: _Shown, finish: Finish) -> None:
        self._machine, held, _ = TextStateMachine.flush(self._machine)
        self._take(held, shown)
        if self._state == "tool":
            assert self._marks is not None
            # Also a model that ends with its answer, without the mark, has made its call.
            self._close(shown, whole=finish == "stop" or not self._marks.end, end="")
        elif self._state == "normal":
            shown.text += "".join(self._gap)

    def _is_enough(self) -> bool:
        return self._called and self._marks is not None and not self._marks.parallel

    def _cross(self, state: str, shown: _Shown) -> None:
        left, self._state = self._state, state
        self._after_mark = True
        if left == "reasoning":
            self._scores.clear()
        if left == "tool":
            assert self._marks is not None
            self._close(shown, whole=True, end=self._marks.end)
        elif (left, state) != ("normal", "tool"):
            self._gap.clear()

    def _take(self, text: str, shown: _Shown) -> None:
        if self._state == "tool":
            self._call.append(text)
            return
        if self._after_mark:
            text = text.lstrip()
            self._after_mark = not text
        words = text.rstrip()
        if words:
            words, self._gap = "".join([*self._gap, words]), [text[len(words) :]]
        else:
            self._gap.append(text)
        if self._state == "reasoning":
            shown.reasoning += words
        elif self._state == "normal":
            shown.text += words

    def _close(self, shown: _Shown, *, whole: bool, end: str) -> None:
        """A call is made, or what was taken for one turns out to be words."""
        marks, text = self._marks, "".join(self._call)
        self._call.clear()
        assert marks is not None
        calls = marks.calls(text) if whole else []
        if calls:
            shown.calls += map(self._numbered, calls)
            self._called = True
            self._scores.clear()
        else:
            shown.text += "".join([*self._gap, marks.start, text, end])
            self._after_mark = False
        self._gap.clear()

    def _numbered(self, call: Call) -> Call:
        """A model's own number is kept where it tells its calls apart."""
        if call.id in self._ids:
            return replace(call, id="")
        self._ids.add(call.id)
        return call

    def _told(self, shown: _Shown, *, ended: bool) -> tuple[tuple[Score, ...], ...]:
        """Scores are told of words only."""
        told: tuple[tuple[Score, ...], ...] = ()
        hidden = shown.reasoning or shown.calls
        if shown.text or (ended and self._state == "normal" and not hidden):
            told = tuple(self._scores)
        if told or hidden:
            self._scores.clear()
        return told
