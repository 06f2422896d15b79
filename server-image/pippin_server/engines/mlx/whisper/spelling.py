"""Which tokens make which word: of writing with spaces what lies between them, of writing without
them what a token writes. Punctuation belongs to the word that it stands at. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

#: Languages that are written without spaces.
_UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
#: Punctuation for Unicode, and said nevertheless.
_SAID = frozenset("%&@#*/\\")
#: What opens, of what may also close, when a space is before it; and what always opens.
_MAY_OPEN, _OPENS = frozenset("\"'-"), frozenset("¿¡")


@dataclass(frozen=True, slots=True)
class Spelt:
    """A word with its punctuation, and the tokens of its letters: `begin` up to `end`."""

    text: str
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class _Piece:
    """Tokens that write whole characters."""

    text: str
    begin: int
    end: int

    @property
    def mute(self) -> bool:
        """Nothing of it is said."""
        return all(_mute(char) for char in self.text if not char.isspace())

    @property
    def opens(self) -> bool:
        """A mark that belongs to the word behind it."""
        marks = self.text.strip()
        if self.text[:1].isspace() and set(marks) <= _MAY_OPEN:
            return bool(marks)
        return bool(marks) and all(
            char in _OPENS or unicodedata.category(char) in ("Ps", "Pi") for char in marks
        )


def _mute(char: str) -> bool:
    return unicodedata.category(char)[0] == "P" and char not in _SAID


def words(
    tokens: Sequence[int], read: Callable[[Sequence[int]], str], language: str
) -> list[Spelt]:
    """All of the text that `read` makes of the tokens, but for the spaces between words."""
    spaced = language not in _UNSPACED
    parts: list[list[_Piece]] = []
    for piece in _pieces(tokens, read):
        if parts and spaced and not piece.text[0].isspace():
            parts[-1].append(piece)
        else:
            parts.append([piece])
    spelt = (_spelt(word) for word in _attached(parts))
    return [word for word in spelt if word.text]


def _pieces(tokens: Sequence[int], read: Callable[[Sequence[int]], str]) -> Iterator[_Piece]:
    """A token may write a part of a character: then what is read so far is not how it goes on."""
    whole = read(tokens)
    begin = written = 0
    for end in range(1, len(tokens) + 1):
        now = read(tokens[:end])
        if len(now) > written and whole.startswith(now):
            yield _Piece(whole[written : len(now)], begin, end)
            begin, written = end, len(now)


def _attached(parts: list[list[_Piece]]) -> list[list[_Piece]]:
    """No punctuation is left alone where there is any word."""
    found: list[list[_Piece]] = []
    waiting: list[_Piece] = []
    for part in parts:
        mute = all(piece.mute for piece in part)
        if mute and (waiting or not found or part[0].opens):
            waiting += part
        elif mute:
            found[-1] += part
        else:
            found.append(waiting + part)
            waiting = []
    if found:
        found[-1] += waiting
        return found
    return [waiting]


def _spelt(word: list[_Piece]) -> Spelt:
    text = "".join(piece.text for piece in word).strip()
    letters = [piece for piece in word if not piece.mute] or word
    if not letters:
        return Spelt("", 0, 0)
    return Spelt(text, letters[0].begin, letters[-1].end)
