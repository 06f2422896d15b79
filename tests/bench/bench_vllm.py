"""The server with the vLLM engine against `vllm serve` itself, side by side in one run.

    python tests/bench/bench_vllm.py [--concurrency 1,4,16] [--rounds 6]

The same random model (7 million parameters, so that what stands around the engine shows), flags and
streaming client. Metrics are counted and lines are logged on our side. Both run all the time and
take turns, in every round with prompts that neither has seen; medians of the rounds count. What
other work on the machine disturbs least is the CPU time of the process that speaks HTTP: for each
token of long answers, and for each request of one token. Not a test.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "hack"))

from bench_server import SHAPES, Result, count_for, percentile, run, work

from support import tinymodel
from support.eventually import eventually
from support.servers import SLOW, Running, free_port
from support.vllm import ARGUMENTS, PYTHON, vllm_config, vllm_serving

#: Tokens per second of vLLM's own server, and milliseconds more to the first token.
GOALS = {"tok_s": 0.97, "ttft_ms": 1.0}
NAME = "smol"
GREEDY: dict[str, Any] = {"temperature": 0, "ignore_eos": True}
KINDS = ("vllm", "server")
#: Requests of one token, one after the other, in every round.
SHORT = 40


@asynccontextmanager
async def itself(model: Path, directory: Path) -> AsyncIterator[Running]:
    """`vllm serve` with the flags that our server sets."""
    port = free_port()
    command = [PYTHON, "-m", "vllm.entrypoints.cli.main", "serve", str(model), *ARGUMENTS]
    command += [f"--port={port}", "--host=127.0.0.1", f"--served-model-name={NAME}"]
    command += ["--max-model-len=512", "--max-num-seqs=32", "--disable-uvicorn-access-log"]
    process = _spawn(command, directory)
    running = Running(process, f"http://127.0.0.1:{port}", directory)
    try:
        await eventually(lambda: _answers(running), within=SLOW)
        yield running
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 30)


def _spawn(command: list[str], directory: Path) -> subprocess.Popen[bytes]:
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "TORCH_COMPILE_DISABLE": "1"}
    with (directory / "stdout").open("wb") as out, (directory / "stderr").open("wb") as err:
        return subprocess.Popen(command, stdout=out, stderr=err, env={**os.environ, **quiet})


async def _answers(running: Running) -> bool:
    try:
        return (await running.get("/health")).status_code == 200
    except httpx.TransportError:
        return False


@asynccontextmanager
async def both(directory: Path) -> AsyncIterator[dict[str, Running]]:
    """They start one after the other: each takes what there is of processor."""
    model = tinymodel.make(directory / "7m", tinymodel.Shape(**SHAPES["7m"]))
    for kind in KINDS:
        (directory / kind).mkdir()
    config = vllm_config(model, served_name=NAME, max_concurrency=32)
    async with (
        itself(model, directory / "vllm") as theirs,
        vllm_serving(directory / "server", config) as ours,
    ):
        yield {"vllm": theirs, "server": ours}


def fresh(count: int, salt: str) -> Iterator[tuple[str, int]]:
    return ((f"{salt} {text}", tokens) for text, tokens in work(count))


async def compare(concurrencies: list[int], rounds: int, directory: Path) -> None:
    long: dict[tuple[str, int], list[Result]] = {}
    short: dict[str, list[Result]] = {}
    async with both(directory) as servers:
        for number in range(rounds + 1):
            for kind in KINDS[:: 1 if number % 2 else -1]:
                salt, server = str(number), servers[kind]
                jobs = ((text, 1) for text, _ in fresh(SHORT, salt))
                found = await run(server, NAME, 1, GREEDY, jobs)
                short.setdefault(kind, []).append(found)
            for concurrency in concurrencies:
                for kind in KINDS[:: 1 if number % 2 else -1]:
                    jobs = fresh(count_for(concurrency), f"{number}-{concurrency}")
                    result = await run(servers[kind], NAME, concurrency, GREEDY, jobs)
                    long.setdefault((kind, concurrency), []).append(result)
    # The first round has warmed both up.
    show_short(short["vllm"][1:], short["server"][1:])
    for concurrency in concurrencies:
        show(concurrency, long["vllm", concurrency][1:], long["server", concurrency][1:])


def show(concurrency: int, theirs: list[Result], ours: list[Result]) -> None:
    ratio = statistics.median(o.rate / t.rate for o, t in zip(ours, theirs, strict=True))
    for kind, results, against in (("vllm", theirs, 1.0), ("server", ours, ratio)):
        rate = statistics.median(r.rate for r in results)
        more = first_token(results) - first_token(theirs)
        cpu = per(results, sum(r.tokens for r in results))
        other = per(theirs, sum(r.tokens for r in theirs))
        print(
            f"c={concurrency:<3} {kind:7} {rate:8.1f} tok/s ({against:.2f} of vllm serve)  "
            f"TTFT p50 {first_token(results) * 1000:7.2f} ms ({more * 1000:+.2f})  "
            f"CPU {cpu * 1e6:6.0f} us/token ({cpu / other:.2f})",
            flush=True,
        )


def show_short(theirs: list[Result], ours: list[Result]) -> None:
    for kind, results in (("vllm", theirs), ("server", ours)):
        more = first_token(results) - first_token(theirs)
        cpu, other = (per(each, sum(len(r.first) for r in each)) for each in (results, theirs))
        print(
            f"1 token {kind:7} TTFT p50 {first_token(results) * 1000:7.2f} ms "
            f"({more * 1000:+.2f})  CPU {cpu * 1e6:6.0f} us/request ({cpu / other:.2f})",
            flush=True,
        )


def first_token(results: list[Result]) -> float:
    """The median of all requests of all rounds."""
    return percentile(list(itertools.chain.from_iterable(r.first for r in results)), 50)


def per(results: list[Result], count: int) -> float:
    """CPU seconds of the process that speaks HTTP; the engine's own are not in it."""
    return sum(r.cpu for r in results) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concurrency", default="1,4,16")
    parser.add_argument("--rounds", type=int, default=6)
    asked = parser.parse_args()
    concurrencies = [int(number) for number in asked.concurrency.split(",")]
    print(f"goals: {GOALS['tok_s']} of vllm serve, TTFT + {GOALS['ttft_ms']} ms at most")
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(compare(concurrencies, asked.rounds, Path(directory)))


if __name__ == "__main__":
    main()
