"""The server with the vLLM engine against `vllm serve` itself, side by side in one run.

    python tests/bench/bench_vllm.py [--concurrency 1,4,16] [--rounds 2]

The same random model (7 million parameters, so that what stands around the engine shows), flags and
streaming client. Keys are checked, limits held and metrics counted on our side. They take turns;
the best round of each counts. Not a test.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "hack"))

from bench_server import SHAPES, Result, closed_loop

from support import tinymodel
from support.eventually import eventually
from support.servers import SLOW, Running, free_port
from support.vllm import ARGUMENTS, PYTHON, vllm_config, vllm_serving

#: Tokens per second of vLLM's own server, and milliseconds more to the first token.
GOALS = {"tok_s": 0.97, "ttft_ms": 1.0}
NAME = "smol"
GREEDY: dict[str, Any] = {"temperature": 0, "ignore_eos": True}


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


async def compare(concurrencies: list[int], rounds: int, directory: Path) -> None:
    model = tinymodel.make(directory / "7m", tinymodel.Shape(**SHAPES["7m"]))
    found: dict[tuple[str, int], list[Result]] = {}
    for number in range(rounds):
        for kind in ("vllm", "server"):
            place = directory / f"{kind}-{number}"
            place.mkdir()
            config = vllm_config(model, served_name=NAME, max_concurrency=32)
            started = itself(model, place) if kind == "vllm" else vllm_serving(place, config)
            async with started as server:
                for concurrency in concurrencies:
                    result = await closed_loop(server, NAME, concurrency, GREEDY)
                    found.setdefault((kind, concurrency), []).append(result)
    for concurrency in concurrencies:
        show(concurrency, found["vllm", concurrency], found["server", concurrency])


def show(concurrency: int, theirs: list[Result], ours: list[Result]) -> None:
    for kind, results in (("vllm", theirs), ("server", ours)):
        rate, other = max(r.rate for r in results), max(r.rate for r in theirs)
        first, other_first = min(r.ttft for r in results), min(r.ttft for r in theirs)
        cpu = min(r.cpu / r.tokens for r in results)
        print(
            f"c={concurrency:<3} {kind:7} {rate:8.1f} tok/s ({rate / other:.2f} of vllm serve)  "
            f"TTFT p50 {first * 1000:7.1f} ms ({(first - other_first) * 1000:+.1f})  "
            f"CPU of the API process {cpu * 1000:5.2f} ms/token",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concurrency", default="1,4,16")
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    concurrencies = [int(number) for number in asked.concurrency.split(",")]
    print(f"goals: {GOALS['tok_s']} of vllm serve, TTFT + {GOALS['ttft_ms']} ms at most")
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(compare(concurrencies, asked.rounds, Path(directory)))


if __name__ == "__main__":
    main()
