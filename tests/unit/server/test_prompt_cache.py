"""With the prompt cache and without it the same is answered, whatever begins like what."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm import load
from mlx_lm.models.cache import ArraysCache, KVCache, RotatingKVCache

from pippin_server.engines.base import OutOfMemory, Sampling, Strain
from pippin_server.engines.mlx.batcher import MlxBatcher
from pippin_server.engines.mlx.degrade import QUIET, Degrade
from pippin_server.engines.mlx.job import Job
from pippin_server.engines.mlx.prefixes import BLOCK
from pippin_server.engines.mlx.promptcache import PromptCache
from support import tinymodel

PLENTY = 1 << 30
#: Bytes of one token: keys and values, layers, heads, their size, float32.
TOKEN = 2 * 2 * 2 * 16 * 4
Prompt = list[int]


def tail(length: int, seed: int) -> Prompt:
    return random.Random(seed).choices(range(3, 300), k=length)


BASE = tail(300, 0)


class Engine:
    """A batcher over the tiny model, and its cache."""

    def __init__(self, model: Any, tokenizer: Any, capacity: int) -> None:
        self.cache = PromptCache(model, capacity)
        self.now = 0.0
        self.degrade = Degrade(16, lambda: self.now)
        limits = {"batch": 16, "prefill_batch": 4, "prefill_step": 64}
        self.batcher = MlxBatcher(model, tokenizer, self.cache, self.degrade, **limits)
        self._tickets = 0

    def add(self, prompt: Prompt, **sampling: Any) -> int:
        wanted = Sampling(**{"temperature": 0, "max_tokens": 8, **sampling})
        self._tickets += 1
        self.batcher.add(self._tickets, Job(list(prompt), wanted.max_tokens or 1, wanted))
        return self._tickets

    def ask(self, *prompts: Prompt, **sampling: Any) -> tuple[list[str], list[int]]:
        """All at once: what is answered, and how many tokens of each prompt were there."""
        tickets = [self.add(prompt, **sampling) for prompt in prompts]
        texts, cached = dict.fromkeys(tickets, ""), dict.fromkeys(tickets, 0)
        while self.batcher.size:
            for ticket, delta in self.batcher.step():
                assert not isinstance(delta, Exception)
                texts[ticket] = texts.get(ticket, "") + delta.text
                cached[ticket] = delta.cached_tokens
        return [texts[ticket] for ticket in tickets], [cached[ticket] for ticket in tickets]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Engine]:
    model, tokenizer = load(str(tinymodel.make(tmp_path_factory.mktemp("tiny") / "m")))[:2]
    return lambda capacity: Engine(model, tokenizer, capacity)


@pytest.fixture
def on(engine: Callable[[int], Engine]) -> Engine:
    return engine(PLENTY)


@pytest.fixture
def off(engine: Callable[[int], Engine]) -> Engine:
    return engine(0)


CASES: dict[str, tuple[list[list[Prompt]], list[list[int]]]] = {
    "the same again": ([[BASE], [BASE]], [[0], [288]]),
    "a whole number of blocks again": ([[BASE[:96]], [BASE[:96]]], [[0], [64]]),
    "a part of it": ([[BASE], [BASE[:100] + tail(9, 1)]], [[0], [96]]),
    "shorter than what is kept": ([[BASE], [BASE[:50]]], [[0], [32]]),
    "longer": ([[BASE[:100]], [BASE]], [[0], [96]]),
    "one token more than a block": ([[BASE], [BASE[: BLOCK + 1]]], [[0], [BLOCK]]),
    "a block and nothing": ([[BASE], [BASE[:BLOCK]]], [[0], [0]]),
    "one token": ([[BASE[:1]], [BASE[:1]]], [[0], [0]]),
    "something else": ([[BASE], [tail(100, 2)]], [[0], [0]]),
    "another first token": ([[BASE], [[5, *BASE[1:]]]], [[0], [0]]),
    "many beside each other": (
        [
            [BASE],
            [BASE[:cut] + tail(1 + 7 * n, n) for n, cut in enumerate((0, 31, 32, 33, 64, 200))]
            + [BASE, BASE[:40], *(BASE[: 10 * n] + tail(3 * n, 50 + n) for n in range(1, 9))],
        ],
        [[0], [0, 0, 32, 32, 64, 192, 288, 32, 0, 0, 0, 32, 32, 32, 64, 64]],
    ),
    "a turn after a turn": (
        [[BASE[:70]], [BASE[:70] + tail(40, 3)], [BASE[:70] + tail(40, 3) + tail(40, 4)]],
        [[0], [64], [96]],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_answers_are_the_same_with_the_cache_and_without(
    name: str, on: Engine, off: Engine
) -> None:
    rounds, cached = CASES[name]
    for prompts, expected in zip(rounds, cached, strict=True):
        with_cache, found = on.ask(*prompts)
        without, nothing = off.ask(*prompts)
        assert with_cache == without
        assert (found, nothing) == (expected, [0] * len(prompts))


def test_a_seeded_answer_with_scores_is_the_same_too(on: Engine, off: Engine) -> None:
    on.ask(BASE)
    hot = {"temperature": 1.0, "seed": 5, "logprobs": 2, "presence_penalty": 1.0}
    assert on.ask(BASE, BASE[:200], **hot)[0] == off.ask(BASE, BASE[:200], **hot)[0]


def test_an_answer_is_kept_with_its_prompt_for_the_next_turn(on: Engine, off: Engine) -> None:
    events = [on.add(BASE[:60], max_tokens=80)]
    tokens: list[int] = []
    row = on.batcher._generator  # what was generated is only known by its tokens in there
    while on.batcher.size:
        on.batcher.step()
        if len(row._generation_batch):
            tokens = list(row._generation_batch.tokens[0])
    assert len(tokens) >= 60 + 78 and events
    following = tokens[:130] + tail(10, 6)
    answers, found = on.ask(following)
    assert found == [128]
    assert answers == off.ask(following)[0]


def test_a_prompt_is_there_for_others_before_its_answer_ends(on: Engine) -> None:
    on.add(BASE, max_tokens=100)
    while not on.batcher.step():
        pass
    other = on.add(BASE[:200])
    cached = [
        delta.cached_tokens
        for _ in range(4)
        for ticket, delta in on.batcher.step()
        if ticket == other and not isinstance(delta, Exception)
    ]
    assert cached[0] == 192


def test_what_many_at_once_share_is_read_by_one_of_them(on: Engine, off: Engine) -> None:
    prompts = [BASE[:260] + tail(1 + n, n) for n in range(12)]
    answers, found = on.ask(*prompts)
    assert answers == off.ask(*prompts)[0]
    assert found == [0] + [256] * 11


def test_who_waited_for_a_request_that_left_goes_on(on: Engine, off: Engine) -> None:
    first = on.add(BASE)
    on.batcher.step()
    others = [BASE[:260] + tail(5, n) for n in range(3)]
    tickets = [on.add(prompt) for prompt in others]
    on.batcher.step()
    on.batcher.remove([first, tickets[0]])
    assert on.ask(others[1])[0] == off.ask(others[1])[0]
    assert not on.batcher.size


def test_a_stop_in_the_middle_keeps_what_was_read(on: Engine, off: Engine) -> None:
    prompt = BASE[:125]  # three blocks; the fourth is full in the middle of the answer
    (whole,), _ = off.ask(prompt, max_tokens=30)
    stop = (whole[40:46],)
    expected = [whole[: whole.index(stop[0])]]
    assert off.ask(prompt, max_tokens=30, stop=stop)[0] == expected
    assert on.ask(prompt, max_tokens=30, stop=stop)[0] == expected
    assert on.cache.state().bytes == 4 * BLOCK * TOKEN
    assert on.ask(prompt, max_tokens=30) == ([whole], [96])


@pytest.mark.parametrize("steps", [0, 1, 3, 8])
def test_leaving_at_any_time_leaves_the_others_answers_alone(
    on: Engine, off: Engine, steps: int
) -> None:
    on.ask(BASE[:130])
    leaving = [on.add(BASE[:cut]) for cut in (140, 300, 20)]
    on.add(BASE[:150] + tail(5, 7))
    for _ in range(steps):
        on.batcher.step()
    on.batcher.remove(leaving)
    assert on.ask(BASE, BASE[:150] + tail(5, 7))[0][:1] == off.ask(BASE)[0]
    assert not on.batcher._generator.cached, "nothing is remembered of who is gone"
    assert on.ask(BASE[:140], BASE[:20])[0] == off.ask(BASE[:140], BASE[:20])[0]


def test_what_a_request_got_does_not_change_what_is_kept(on: Engine, off: Engine) -> None:
    for _ in range(2):
        for seed in range(3):
            prompt = BASE[:128] + tail(20, seed)
            assert on.ask(prompt)[0] == off.ask(prompt)[0]


def test_the_cap_holds_and_counts_the_bytes_that_there_are(
    engine: Callable[[int], Engine], off: Engine
) -> None:
    probe = engine(PLENTY)
    probe.ask(BASE[: BLOCK + 1], max_tokens=1)
    block = probe.cache.state().bytes
    assert block == 2 * 2 * 2 * 16 * 4 * BLOCK, (
        "keys and values, layers, heads, their size, float32"
    )
    small = engine(5 * block + 100)
    for seed in range(3):
        prompts = [BASE[: 20 * n] + tail(64, seed) for n in range(1, 8)]
        assert small.ask(*prompts)[0] == off.ask(*prompts)[0]
        assert small.cache.state().bytes <= 5 * block
    assert small.cache.state().bytes == 5 * block
    assert small.cache.state().evicted > 0


def test_what_is_counted_is_what_is_held(on: Engine) -> None:
    for seed in range(5):
        on.ask(BASE[:100] + tail(100, seed))
    counted = on.cache.state().bytes
    on.batcher.reset()
    gc.collect()
    before = int(mx.get_active_memory())
    on.cache.drop("the test says so")
    freed = before - int(mx.get_active_memory())
    assert counted <= freed <= counted * 1.2, "small buffers are rounded up"


def test_hits_and_misses_are_tokens_of_prompts(on: Engine, off: Engine) -> None:
    on.ask(BASE)
    on.ask(BASE)
    assert (on.cache.hits, on.cache.misses) == (288, 300 + 12)
    off.ask(BASE)
    assert (off.cache.hits, off.cache.misses) == (0, 0)


@pytest.fixture
def broken(on: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Exception], None]]:
    on.ask(BASE)
    assert on.cache.state().bytes

    def break_with(error: Exception) -> None:
        def fails(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(mx, "stack", fails)  # only the cache does that

    yield break_with


def test_an_error_in_the_cache_turns_it_off_and_nobody_else_sees_it(
    on: Engine, off: Engine, broken: Callable[[Exception], None]
) -> None:
    broken(ValueError("/secret/path"))
    prompts = [BASE[:100] + tail(50, 8), tail(90, 9)]
    expected = off.ask(*prompts)[0]
    assert on.ask(*prompts)[0] == expected
    state = on.cache.state()
    assert state.reason is not None
    assert "ValueError" in state.reason and "secret" not in state.reason
    assert (state.bytes, state.capacity, state.drops) == (0, 0, 1)
    assert on.ask(*prompts) == (expected, [0, 0])


def test_no_memory_for_the_cache_drops_it_and_it_goes_on(
    on: Engine, off: Engine, broken: Callable[[Exception], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(RuntimeError("[malloc] Unable to allocate 99 bytes."))
    prompt = BASE[:100] + tail(50, 8)
    expected = off.ask(prompt)[0]
    assert on.ask(prompt)[0] == expected
    state = on.cache.state()
    assert (state.reason, state.bytes, state.drops) == (None, 0, 1)
    monkeypatch.undo()
    on.ask(prompt)
    assert on.ask(prompt) == (expected, [128])


def test_no_memory_for_a_step_drops_the_cache_first(
    on: Engine, off: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    on.ask(BASE)
    on.add(BASE[:50])

    def fails() -> None:
        raise RuntimeError("[metal::malloc] out of memory")

    monkeypatch.setattr(on.batcher._generator, "next", fails)
    with pytest.raises(OutOfMemory):
        on.batcher.step()
    state = on.cache.state()
    assert (state.reason, state.bytes, state.drops) == (None, 0, 1)
    assert on.batcher.reset() == [2]
    assert on.degrade.state() == Strain(True, 8, 16, 1, on.degrade.state().freed)
    assert on.degrade.state().freed > 0, "what the prompt cache held"
    for _ in range(2):
        assert on.ask(BASE) == (off.ask(BASE)[0], [0]), "no prompt cache for a while"
    paused = on.cache.state()
    assert paused.reason is not None and "comes back by itself" in paused.reason
    on.now = QUIET + 1
    on.ask(BASE)
    assert on.ask(BASE)[1] == [288]
    assert on.degrade.state().degraded is False


def test_after_memory_ran_out_half_as_many_are_worked_on_at_once(
    on: Engine, off: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [tail(40, seed) for seed in range(20)]
    tickets = [on.add(prompt) for prompt in prompts]
    on.batcher.step()
    begun = 20 - len(on.batcher._generator.waiting)
    assert 0 < begun < 20

    def fails() -> None:
        raise RuntimeError("[malloc] Unable to allocate 99 bytes.")

    monkeypatch.setattr(on.batcher._generator, "next", fails)
    with pytest.raises(OutOfMemory):
        on.batcher.step()
    assert on.batcher.reset() == tickets[:begun], "who had not begun goes on"
    texts, most = dict.fromkeys(tickets[begun:], ""), 0
    while on.batcher.size:
        for ticket, delta in on.batcher.step():
            assert not isinstance(delta, Exception)
            texts[ticket] += delta.text
        most = max(most, len(on.batcher._generator._generation_batch))
    assert list(texts.values()) == off.ask(*prompts[begun:])[0]
    assert most <= 8


@pytest.mark.parametrize("kind", [RotatingKVCache(max_size=64), ArraysCache(2)])
def test_a_model_whose_state_cannot_be_cut_has_no_cache_and_says_why(kind: Any) -> None:
    class Model:
        def make_cache(self) -> list[Any]:
            return [KVCache(), kind]

    cache = PromptCache(Model(), PLENTY)
    state = cache.state()
    assert state.reason is not None and type(kind).__name__ in state.reason
    assert state.capacity == 0
    assert cache.take(BASE) == ([], 0)
    assert (cache.hits, cache.misses) == (0, 0)
