"""MLX's batch in this process, for what its answers should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from pippin_server.engines.base import Sampling
from pippin_server.engines.mlx.args import Args
from pippin_server.engines.mlx.batcher import MlxBatcher
from pippin_server.engines.mlx.job import Job
from pippin_server.engines.mlx.model import load
from pippin_server.engines.mlx.promptcache import PromptCache


class Batch(NamedTuple):
    batcher: MlxBatcher
    cache: PromptCache


def a_batch(path: Path) -> Batch:
    model = load(path, Args())
    cache = PromptCache(model.weights, 2**27)
    batcher = MlxBatcher(
        model.weights, model.tokenizer, cache, batch=16, prefill_batch=4, prefill_step=64
    )
    return Batch(batcher, cache)


def a_job(prompt: list[int], adapter: int = 0, **more: Any) -> Job:
    """Greedy, of 16 tokens."""
    return Job(prompt, 16, Sampling(temperature=0, max_tokens=16), adapter=adapter, **more)


def answers(batch: Batch, jobs: list[Job]) -> list[str]:
    """All at once."""
    for ticket, job in enumerate(jobs):
        batch.batcher.add(ticket, job)
    texts = [""] * len(jobs)
    while batch.batcher.size:
        for ticket, event in batch.batcher.step():
            assert not isinstance(event, Exception), event
            texts[ticket] += event.text
    return texts
