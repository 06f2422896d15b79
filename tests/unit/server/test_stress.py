"""A hundred mixed requests at once, over and over, while memory runs out: everyone gets a right
answer or a right error, and nothing piles up."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from pippin_contract.serverconfig import PromptCacheConfig
from pippin_server.engines.base import EngineError, Prompt, Sampling
from pippin_server.engines.mlx.args import Args
from pippin_server.engines.mlx.engine import MlxEngine
from pippin_server.engines.mlx.fit import Fitting, Wish
from pippin_server.engines.mlx.rows import RowGenerator
from pippin_server.hardware.budget import Budget
from support import tinymodel
from support.eventually import eventually

REQUESTS, ROUNDS = 100, 4
TEXTS = ["hello big world", "the model server batch", "one two three four five " * 8]
GREEDY = Sampling(max_tokens=6, temperature=0)
KINDS = ("whole", "whole", "scored", "left", "too long", "no such token")


class Runs(MlxEngine):
    """Counts what came of the requests; knows what the right answers are."""

    answers: dict[str, str]

    async def text(self, text: str, sampling: Sampling = GREEDY) -> str:
        deltas = [d async for ds in self.generate(Prompt(text=text), sampling) for d in ds]
        assert deltas[-1].finish == "length" and deltas[-1].prompt_tokens > 0
        return "".join(delta.text for delta in deltas)

    async def fate(self, kind: str, text: str) -> str:
        try:
            return await self._asked(kind, text)
        except EngineError as error:
            return type(error).__name__

    async def _asked(self, kind: str, text: str) -> str:
        if kind == "left":
            async with aclosing(self.generate(Prompt(text=text), GREEDY)) as answer:
                await anext(answer)
            return "left"
        if kind == "too long":
            return await self.text("word " * 1000)
        if kind == "no such token":
            async for _ in self.generate(Prompt(tokens=(10**6,)), GREEDY):
                pass
        if kind == "scored":
            scored = Sampling(max_tokens=6, temperature=0, logprobs=1, echo=True)
            assert await self.text(text, scored) == text + self.answers[text]
        else:
            assert await self.text(text) == self.answers[text]
        return "answered"


@pytest.fixture
def runs_out(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """When set, the next step has no memory."""
    wanted, step = threading.Event(), RowGenerator.next

    def next_or_not(self: RowGenerator) -> Any:
        if wanted.is_set():
            wanted.clear()
            raise RuntimeError("[malloc] Unable to allocate 123456789 bytes.")
        return step(self)

    monkeypatch.setattr(RowGenerator, "next", next_or_not)
    yield wanted


def held() -> tuple[int, int]:
    """Threads and files."""
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


@pytest.mark.timeout(240)
async def test_a_hundred_at_once_while_memory_runs_out(
    tmp_path: Path, runs_out: threading.Event
) -> None:
    path = tinymodel.make(tmp_path / "tiny")
    wish = Wish(None, 16, PromptCacheConfig(max_bytes=2**20), Args(), on_cpu=True)
    engine = Runs(Fitting(wish, Budget(0, "nobody says")), clock=time.monotonic)
    await engine.load(path, lambda *_: None)
    engine.answers = {text: await engine.text(text) for text in TEXTS}
    lots, memory, before = random.Random(1), [], held()
    for number in range(ROUNDS):
        kinds = itertools.islice(itertools.cycle(KINDS), REQUESTS)
        asked = [(kind, lots.choice(TEXTS)) for kind in kinds]
        asking = [asyncio.create_task(engine.fate(*one)) for one in asked]
        await eventually(lambda: engine.activity().batch > 4, within=20)
        runs_out.set()
        fates = Counter(await asyncio.gather(*asking))
        assert set(fates) <= {"answered", "left", "OutOfMemory", "PromptTooLong", "PromptRefused"}
        refused = sum(kind in ("too long", "no such token") for kind, _ in asked)
        assert fates["PromptTooLong"] + fates["PromptRefused"] == refused
        assert 0 < fates["OutOfMemory"] <= 20, "those of one step"
        await eventually(lambda: engine.activity().active == 0, within=20)
        seen = engine.activity()
        assert seen.alive and seen.strain is not None
        assert (seen.strain.degraded, seen.strain.times) == (True, number + 1)
        gc.collect()
        memory.append(int(mx.get_active_memory()))
    # Those of tests before may end meanwhile.
    assert all(now <= then for now, then in zip(held(), before, strict=True))
    assert max(memory[1:]) <= memory[0] + 2**20
    assert await engine.text(TEXTS[0]) == engine.answers[TEXTS[0]]
    await engine.close()
