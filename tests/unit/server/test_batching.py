"""Texts of many requests share batches: nobody waits without need, nobody is held up by another."""

from __future__ import annotations

import asyncio
import threading
import time
from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from pippin_contract.serverconfig import Batching
from pippin_server.engines.base import EngineFailed, EngineStopped, InputTooLong, PromptRefused
from pippin_server.engines.batching import MAX_TOKENS, Batches, fitting
from pippin_server.engines.worker import MAX_FAILURES
from support.eventually import eventually

#: Seconds that no test waits for.
NEVER = 3600.0


class Model:
    """A text's vector is its first token; works when the gate is open."""

    def __init__(self) -> None:
        self.batches: list[list[Sequence[int]]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.fail: Exception | None = None

    def embed(self, texts: Sequence[Sequence[int]]) -> list[array[float]]:
        self.batches.append(list(texts))
        self.gate.wait(10)
        if self.fail is not None:
            raise self.fail
        return [array("f", [text[0]]) for text in texts]

    @property
    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.batches]


@asynccontextmanager
async def batches(size: int = 32, window: float = NEVER) -> AsyncIterator[tuple[Batches, Model]]:
    batching = Batching(max_batch_size=size, window_seconds=window)
    found, model = Batches(batching, clock=time.monotonic, tell=lambda texts: None), Model()
    found.start(model.embed)
    try:
        yield found, model
    finally:
        model.gate.set()
        await found.close()


async def made(*texts: Sequence[int]) -> Sequence[Sequence[int]]:
    return texts


async def firsts(found: Batches, *texts: Sequence[int]) -> list[float]:
    return [vector[0] for vector in await found.run(made(*texts))]


async def test_a_lone_request_does_not_wait_for_the_window() -> None:
    async with batches(window=NEVER) as (found, model):
        assert await firsts(found, [7]) == [7]
        assert await firsts(found, [8], [9]) == [8, 9]
        assert model.sizes == [1, 2]


async def test_texts_that_are_on_their_way_are_waited_for() -> None:
    coming: asyncio.Future[Sequence[Sequence[int]]] = asyncio.get_running_loop().create_future()
    async with batches() as (found, model):
        late = asyncio.create_task(found.run(coming))
        await asyncio.sleep(0)
        early = asyncio.create_task(firsts(found, [1]))
        await eventually(lambda: found.activity().active == 2)
        assert model.batches == []
        coming.set_result([[2]])
        assert await early == [1]
        assert (await late)[0][0] == 2
        assert model.sizes == [2]


async def test_but_no_longer_than_the_window_nor_when_the_batch_is_full() -> None:
    coming: asyncio.Future[Sequence[Sequence[int]]] = asyncio.get_running_loop().create_future()
    async with batches(window=0.01) as (found, model):
        late = asyncio.create_task(found.run(coming))
        await asyncio.sleep(0)
        assert await firsts(found, [1]) == [1]
        late.cancel()
    coming = asyncio.get_running_loop().create_future()
    async with batches(size=2, window=NEVER) as (found, model):
        late = asyncio.create_task(found.run(coming))
        await asyncio.sleep(0)
        assert await firsts(found, [1], [2]) == [1, 2]
        assert model.sizes == [2]
        late.cancel()


async def test_who_comes_while_the_engine_works_shares_the_next_batch() -> None:
    async with batches() as (found, model):
        model.gate.clear()
        asked = [asyncio.create_task(firsts(found, [0]))]
        await eventually(lambda: model.batches)
        assert found.activity().batch == 1
        asked += [asyncio.create_task(firsts(found, [number])) for number in range(1, 6)]
        await asyncio.sleep(0)
        model.gate.set()
        assert await asyncio.gather(*asked) == [[number] for number in range(6)]
        assert model.sizes == [1, 5]


async def test_one_with_many_texts_does_not_hold_up_one_with_few() -> None:
    async with batches(size=4) as (found, model):
        model.gate.clear()
        many = asyncio.create_task(firsts(found, *([n] for n in range(100))))
        await eventually(lambda: model.batches)
        few = asyncio.create_task(firsts(found, [500], [501]))
        await eventually(lambda: found.activity().active == 2)
        model.gate.set()
        assert await few == [500, 501]
        assert not many.done()
        assert await many == list(range(100))
        assert [500] in model.batches[1] and [501] in model.batches[1]


async def test_a_batch_holds_texts_of_like_lengths_and_answers_keep_their_order() -> None:
    lengths = [1, 300, 2, 17, 299, 16, 30, 257]
    texts = [[number] * length for number, length in enumerate(lengths)]
    async with batches() as (found, model):
        assert await firsts(found, *texts) == list(range(8))
        assert sorted(model.sizes) == [2, 3, 3]
        for batch in model.batches:
            longest, shortest = max(map(len, batch)), min(map(len, batch))
            assert longest <= max(16, 2 * shortest)


async def test_long_texts_come_in_small_batches() -> None:
    async with batches() as (found, model):
        await firsts(found, *([1] * 4000 for _ in range(6)))
        assert model.sizes == [2, 2, 2]


async def test_what_nobody_waits_for_is_not_computed() -> None:
    async with batches(size=4) as (found, model):
        model.gate.clear()
        left = asyncio.create_task(firsts(found, *([n] for n in range(100))))
        await eventually(lambda: model.batches)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        assert found.activity().active == 0
        model.gate.set()
        assert await firsts(found, [7]) == [7]
        assert [7] in model.batches[-1]
        assert sum(model.sizes) == 5


async def test_a_failed_batch_is_told_without_the_library_s_words_and_forgotten() -> None:
    async with batches() as (found, model):
        model.fail = RuntimeError("a secret of the library")
        with pytest.raises(EngineFailed) as failed:
            await firsts(found, [1], [2])
        assert "secret" not in str(failed.value)
        model.fail = None
        assert await firsts(found, [3]) == [3]
        assert found.activity().alive


async def test_after_several_failures_the_engine_is_dead() -> None:
    async with batches() as (found, model):
        model.fail = RuntimeError("no")
        for _ in range(MAX_FAILURES):
            with pytest.raises(EngineFailed):
                await firsts(found, [1])
        await eventually(lambda: not found.activity().alive)
        with pytest.raises(EngineFailed):
            await firsts(found, [1])


async def test_closing_ends_those_who_wait() -> None:
    async with batches() as (found, model):
        model.gate.clear()
        waiting = asyncio.create_task(firsts(found, [1]))
        await eventually(lambda: model.batches)
        closing = asyncio.create_task(found.close())
        with pytest.raises(EngineStopped):
            await waiting
        model.gate.set()
        await closing
        assert not found.activity().alive


async def test_the_clock_shows_a_standstill_and_progress() -> None:
    async with batches() as (found, model):
        model.gate.clear()
        waiting = asyncio.create_task(firsts(found, [1]))
        await eventually(lambda: model.batches)
        stood = found.activity()
        assert (stood.active, stood.batch) == (1, 1)
        model.gate.set()
        await waiting
        assert found.activity().progressed_at > stood.progressed_at


def test_texts_that_do_not_fit_are_refused_with_both_numbers() -> None:
    assert fitting([[1], [1] * 10], 10) == [[1], [1] * 10]
    with pytest.raises(InputTooLong, match="11 tokens.* reads 10") as refused:
        fitting([[1], [1] * 11], 10)
    assert refused.value.index == 1
    with pytest.raises(PromptRefused, match=f"300010 tokens.*{MAX_TOKENS}"):
        fitting([[1] * 10] * 30_001, 10)
    with pytest.raises(PromptRefused, match="no token"):
        fitting([[1], []], 10)
