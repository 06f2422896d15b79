"""From what a decoder looked at to the step of each token, and from tokens to words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from pippin_server.engines.base import LoadFailed
from pippin_server.engines.media import Hearing, Passage, Recording, Word
from pippin_server.engines.mlx.args import Args
from pippin_server.engines.mlx.whisper import aligning, spelling
from pippin_server.engines.mlx.whisper.listening import Listening, Step
from pippin_server.engines.mlx.whisper.loading import load
from pippin_server.engines.mlx.whisper.mel import HERTZ
from pippin_server.engines.mlx.whisper.model import Model
from pippin_server.engines.mlx.whisper.seeking import STEP
from pippin_server.engines.mlx.whisper.timing import Window, timed
from pippin_server.media.sounds import sound
from support import speech, tinywhisper


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(tinywhisper.make(tmp_path_factory.mktemp("tiny")), Args(), None)[0]


def best(likely: Any) -> float:
    """The sum of the best way, place by place."""
    tokens, steps = likely.shape
    sums = numpy.full((tokens + 1, steps + 1), -numpy.inf)
    sums[0, 0] = 0
    for i, j in product(range(tokens), range(steps)):
        sums[i + 1, j + 1] = likely[i, j] + max(sums[i, j], sums[i, j + 1], sums[i + 1, j])
    return float(sums[-1, -1])


def of_way(likely: Any, begins: list[int]) -> float:
    """The most that a way with these beginnings has; each token ends at or before the next's."""
    ends = [*begins[1:], likely.shape[1] - 1]
    total = 0.0
    for token, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        last = token == len(begins) - 1
        # Up to the step before the next begins, or up to that step.
        short = likely[token, begin : max(end, begin + 1)].sum()
        whole = likely[token, begin : end + 1].sum()
        total += whole if last else max(short, whole)
    return float(total)


@given(st.integers(1, 7), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_no_way_through_tokens_and_steps_is_better(tokens: int, steps: int, seed: int) -> None:
    likely = numpy.random.default_rng(seed).standard_normal((tokens, steps)).astype(numpy.float32)
    begins = aligning.begins(likely)
    assert begins[0] == 0 and begins == sorted(begins) and begins[-1] < steps
    assert of_way(likely, begins) == pytest.approx(best(likely), abs=1e-4)


@pytest.mark.parametrize("length", [1, 3, 4, 7, 50])
def test_a_number_that_stands_out_gives_way_to_its_neighbours(length: int) -> None:
    rows = numpy.random.default_rng(length).standard_normal((3, length)).astype(numpy.float32)
    found = aligning.smooth(rows)
    if length <= 3:
        assert numpy.array_equal(found, rows)
        return
    padded = numpy.pad(rows, ((0, 0), (3, 3)), mode="reflect")
    windows = numpy.lib.stride_tricks.sliding_window_view(padded, 7, axis=1)
    assert numpy.array_equal(found, numpy.median(windows, axis=-1))


def test_what_all_tokens_look_at_alike_says_nothing() -> None:
    """A head that looks at one place always is no hindrance, and one without sound neither."""
    follows = numpy.full((1, 4, 40), -9, dtype=numpy.float32)
    for token in range(4):
        follows[0, token, 10 * token : 10 * token + 10] = 0
    stares = numpy.full((1, 4, 40), -200, dtype=numpy.float32)
    stares[0, :, 7] = 0
    found = aligning.attended(numpy.concatenate([follows, stares]))
    assert numpy.isfinite(found).all()
    assert aligning.begins(found) == [0, 10, 20, 30]


#: What tokens write | language | words, each with its tokens of letters.
SPELT: list[tuple[str, str, list[tuple[str, int, int]]]] = [
    (" Hello|,| wor|ld|.", "en", [("Hello,", 0, 1), ("world.", 2, 4)]),
    (" don|'t| pay| 10|,|000|%|!", "en", [("don't", 0, 2), ("pay", 2, 3), ("10,000%!", 3, 7)]),
    (" (|so| he| said|)|...", "en", [("(so", 1, 2), ("he", 2, 3), ("said)...", 3, 4)]),
    (" a| -| b| \"|c|\"", "en", [("a", 0, 1), ("- b", 2, 3), ('"c"', 4, 5)]),
    (" ¿|Qué|?| «|Sí|»", "es", [("¿Qué?", 1, 2), ("«Sí»", 4, 5)]),
    (" a| …| b", "en", [("a …", 0, 1), ("b", 2, 3)]),
    ("今天|天|，|「|好|」|。", "zh", [("今天", 0, 1), ("天，", 1, 2), ("「好」。", 4, 5)]),
    (" ...", "en", [("...", 0, 1)]),
    (" well| (", "en", [("well (", 0, 1)]),
    (" | ", "en", []),
]  # fmt: skip


@pytest.mark.parametrize(("writing", "language", "wanted"), SPELT, ids=[one[0] for one in SPELT])
def test_tokens_make_words_and_punctuation_belongs_to_one(
    writing: str, language: str, wanted: list[tuple[str, int, int]]
) -> None:
    parts = writing.split("|")
    found = spelling.words(
        range(len(parts)), lambda tokens: "".join(parts[i] for i in tokens), language
    )
    assert [(one.text, one.begin, one.end) for one in found] == wanted


@given(st.text(max_size=30), st.lists(st.integers(1, 5)), st.sampled_from(["en", "ja"]))
def test_characters_in_pieces_are_put_together(text: str, cuts: list[int], language: str) -> None:
    """A token is some bytes, wherever they lie in a character."""
    raw, parts = text.encode(), []
    for length in [*cuts, *[1] * len(raw)]:
        parts.append(raw[:length])
        raw = raw[length:]

    def read(tokens: Sequence[int]) -> str:
        return b"".join(parts[i] for i in tokens).decode(errors="replace")

    found = spelling.words(range(len(parts)), read, language)
    assert "".join("".join(one.text for one in found).split()) == "".join(text.split())
    spans = [bound for one in found for bound in (one.begin, one.end)]
    assert spans == sorted(spans)


class Watched:
    """A network whose only head looks where it is told, at 20 ms a step."""

    def __init__(self, tokens: list[tuple[int, int]]) -> None:
        self._tokens = tokens

    def looks(self, tokens: list[int], *_: object) -> Iterator[mx.array]:
        scores = numpy.full((1, len(tokens), tinywhisper.SOURCES), -9, dtype=numpy.float32)
        behind = len(tokens) - len(self._tokens) - 1
        for row, (begin, end) in enumerate(self._tokens, start=behind):
            scores[0, row, begin:end] = 0
        yield mx.array(scores)


def passage(model: Model, text: str, start: float, end: float) -> Passage:
    return Passage(text, start, end, (), tuple(model.vocabulary.words(text)), "en")


def said(model: Model, looks: list[tuple[int, int]], *passages: Passage) -> list[Passage]:
    """A letter is a token. `looks`: where each of them is looked for, and what comes last."""
    stub: Any = Watched(looks)
    window = Window([], HERTZ, tinywhisper.SOURCES * STEP)
    steps = timed(replace(model, net=stub), window, passages, "en")
    while True:
        try:
            next(steps)
        except StopIteration as over:
            return list(over.value)


def test_a_word_lasts_from_its_first_letter_to_what_follows_its_last(model: Model) -> None:
    looks = [(0, 5), (5, 10), (10, 14), (14, 20), (20, 30), (30, 40), (40, 50)]
    [made] = said(model, looks, passage(model, "ab, c.", 1.0, 2.0))
    assert made.words == (Word("ab,", 1.0, 1.2), Word("c.", 1.4, 1.6))
    assert (made.start, made.end) == (1.0, 1.6)


def test_a_pause_before_a_sentence_counts_for_no_word(model: Model) -> None:
    """Words last 5 steps each, but for the one behind a pause."""
    looks = [(0, 4), (4, 5), (5, 6), (6, 40), (40, 41), (41, 45), (45, 50)]
    [made] = said(model, looks, passage(model, "a. b c", 1.0, 2.0))
    assert [one.text for one in made.words] == ["a.", "b", "c"]
    assert made.words[1].start == pytest.approx(1.8 - 2 * 0.08)
    assert made.words[1].end == pytest.approx(1.82 - 0.02)


def test_what_came_before_a_passage_is_none_of_its_first_word(model: Model) -> None:
    looks = [(0, 20), (20, 21), (21, 40), (40, 50)]
    [made] = said(model, looks, passage(model, "a b", 1.3, 1.7))
    assert made.words[0] == Word("a", pytest.approx(1.3), pytest.approx(1.4))
    assert (made.start, made.end) == (made.words[0].start, made.words[-1].end)


def test_words_of_several_passages_are_each_their_own(model: Model) -> None:
    looks = [(0, 10), (10, 20), (20, 30), (30, 50)]
    first, second, third = said(
        model,
        looks,
        passage(model, "a", 1.0, 1.2),
        replace(passage(model, "b", 1.2, 1.4), tokens=()),
        passage(model, "bc", 1.4, 1.6),
    )
    assert [one.text for one in (*first.words, *third.words)] == ["a", "bc"]
    assert second.words == ()
    assert first.end <= third.start


def heard(model: Model, *, words: bool) -> tuple[list[Passage], list[Step]]:
    content = speech.wav(speech.tone(2.3))
    recording = Recording(content, *sound(content))
    steps = list(Listening(model, recording, Hearing("en", words=words)).steps())
    return [one for step in steps for one in step or ()], steps


def test_words_are_looked_for_a_layer_at_a_time_and_only_when_asked_for(model: Model) -> None:
    plain, few = heard(model, words=False)
    found, steps = heard(model, words=True)
    assert [one.text for one in found] == [one.text for one in plain]
    assert not any(one.words for one in plain)
    windows = sum(1 for step in few if step is not None)
    assert len(steps) - len(few) == windows * len({layer for layer, _ in model.heads})
    for one in found:
        assert "".join("".join(w.text for w in one.words).split()) == "".join(one.text.split())
        assert (one.start, one.end) == (one.words[0].start, one.words[-1].end)
    times = [time for one in found for word in one.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert times[-1] <= 2.3


def heads(path: Path) -> list[tuple[int, int]]:
    return sorted(load(path, Args(), None)[0].heads)


def tell(path: Path, told: object) -> None:
    file = path / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "alignment_heads": told}))


def test_heads_are_those_that_the_files_tell_or_the_upper_half(tmp_path: Path) -> None:
    path = tinywhisper.make(tmp_path / "tiny")
    assert heads(path) == [(1, 0), (1, 1)]
    weights = path / "model.safetensors"
    save_file({**load_file(weights), "alignment_heads": numpy.array([[0, 1], [1, 0]])}, weights)
    assert heads(path) == [(0, 1), (1, 0)]
    tell(path, [[1, 1]])
    assert heads(path) == [(1, 1)]


@pytest.mark.parametrize("told", [[[2, 0]], [[0, 2]], [[-1, 0]], [1, 2], [[1]], 7])
def test_heads_that_the_weights_do_not_have_are_named(tmp_path: Path, told: object) -> None:
    path = tinywhisper.make(tmp_path / "tiny")
    tell(path, told)
    with pytest.raises(LoadFailed, match="alignment_heads"):
        load(path, Args(), None)
