"""The prompt cache, beside a server without it, in one run.

    python tests/bench/bench_prompts.py [--rounds 7]

Two servers with the same model, one with the cache and one without, are asked in turns. First: time
to the first token of prompts that share their first 1,000 tokens, each prompt new in its end.
Second: 16 such prompts at once, their shared beginning new each round. Third: tokens per second of
prompts that share nothing, one and 16 at a time, so that all that the cache does is in the way.
Ratios mean something elsewhere, absolute figures do not. Not a test.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import bench_server
from bench_server import SHAPES, Result, ask

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pippin_contract.serverconfig import PromptCacheConfig
from support import tinymodel
from support.servers import Running, mlx_config, serving

GREEDY = {"temperature": 0}
SHARED = 1000
_FRESH = itertools.count()


@dataclass
class Pair:
    """A server with the cache, and one without."""

    name: str
    kept: Running
    bare: Running

    def turns(self) -> tuple[tuple[str, Running], ...]:
        return ("with", self.kept), ("without", self.bare)


def shared(tokens: int) -> str:
    """Words that nobody has sent before; about so many tokens in the tokenizers of tinymodel."""
    rng = random.Random(next(_FRESH))
    return " ".join(rng.choice(bench_server._WORDS) for _ in range(tokens))


@asynccontextmanager
async def a_pair(name: str, directory: Path) -> AsyncIterator[Pair]:
    model = tinymodel.make(directory / name, tinymodel.Shape(**SHAPES[name]))

    def config(kept: bool) -> object:
        cache = PromptCacheConfig(enabled=kept)
        return mlx_config(model, served_name=name, max_concurrency=32, prompt_cache=cache)

    places = [directory / "with", directory / "without"]
    for place in places:
        place.mkdir()
    async with (
        serving(places[0], config(True)) as kept,
        serving(places[1], config(False)) as bare,
    ):
        yield Pair(name, kept, bare)


async def first_tokens(pair: Pair, rounds: int) -> None:
    """Alone, the shared prefix known."""
    prefix = shared(SHARED)
    found: dict[str, list[float]] = {"with": [], "without": []}
    for number in range(rounds + 1):
        prompt = f"{prefix} {shared(10)}"
        for kind, server in pair.turns():
            result = await ask(server.url, pair.name, (prompt, 8), GREEDY)
            if number:  # the first one fills the cache
                found[kind] += result.first
    tell(f"{pair.name}: {SHARED} tokens shared, alone: TTFT", found)


async def crowds(pair: Pair, rounds: int) -> None:
    found: dict[str, list[float]] = {"with": [], "without": []}
    for _ in range(rounds):
        prefix = shared(SHARED)
        prompts = [f"{prefix} {shared(10)}" for _ in range(16)]
        for kind, server in pair.turns():
            asked = (ask(server.url, pair.name, (prompt, 8), GREEDY) for prompt in prompts)
            found[kind] += [r.first[0] for r in await asyncio.gather(*asked)]
    tell(f"{pair.name}: {SHARED} tokens shared, new, 16 at once: TTFT", found)


def tell(what: str, found: dict[str, list[float]]) -> None:
    kept, bare = (statistics.median(found[kind]) * 1000 for kind in ("with", "without"))
    print(
        f"{what} median {kept:.1f} ms with, {bare:.1f} ms without: {bare / kept:.1f} times sooner",
        flush=True,
    )


async def rate(pair: Pair, server: Running, jobs: list[tuple[str, int]], at_once: int) -> Result:
    total, left = Result(), iter(jobs)

    async def one() -> None:
        for job in left:
            result = await ask(server.url, pair.name, job, GREEDY)
            total.tokens += result.tokens
            total.between += result.between

    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.gather(*(one() for _ in range(at_once)))
    total.wall = loop.time() - began
    return total


async def rates(pair: Pair, at_once: int, rounds: int) -> None:
    best, between = {"with": 0.0, "without": 0.0}, {"with": [0.0], "without": [0.0]}
    for number in range(rounds):
        count = bench_server.count_for(at_once)
        jobs = [(f"{next(_FRESH)} {text}", n) for text, n in bench_server.work(count)]
        for kind, server in pair.turns() if number % 2 else reversed(pair.turns()):
            result = await rate(pair, server, jobs, at_once)
            best[kind] = max(best[kind], result.rate)
            between[kind].append(statistics.median(result.between))
    steps = {kind: min(times[1:]) * 1000 for kind, times in between.items()}
    print(
        f"{pair.name}: nothing shared, {at_once} at once: {best['with']:.1f} tok/s with,"
        f" {best['without']:.1f} without: {best['with'] / best['without']:.3f};"
        f" between tokens {steps['with']:.2f} and {steps['without']:.2f} ms",
        flush=True,
    )


async def measure(name: str, rounds: int, directory: Path) -> None:
    async with a_pair(name, directory) as pair:
        await first_tokens(pair, rounds)
        await crowds(pair, max(1, rounds // 2))
        for at_once in (1, 16):
            await rates(pair, at_once, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="7m")
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    for name in asked.models.split(","):
        with tempfile.TemporaryDirectory() as directory:
            asyncio.run(measure(name, asked.rounds, Path(directory)))


if __name__ == "__main__":
    main()
