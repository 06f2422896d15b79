"""The server against the raw engine on the same prompts, side by side in one run.

    python tests/bench/bench_server.py [--models 7m,56m] [--concurrency 1,4,16] [--rounds 3]

Raw: mlx_lm's BatchGenerator in a process of its own, closed loop. Server: `pippin-server serve` and
a streaming client. They take turns, greedy and seeded twice in each round, and a ratio is the
median over the turns of what ran next to each other: a shared machine is slow or fast for minutes.
Ratios mean something elsewhere, absolute figures do not. Not a test.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[1]))

if TYPE_CHECKING:
    from support.servers import Running

SHAPES: dict[str, dict[str, int]] = {
    "tiny": {},
    "7m": dict(layers=4, hidden=256, inter=704, vocabulary=8000, context=4096),
    "56m": dict(
        layers=8, hidden=512, inter=1408, heads=8, kv_heads=4, vocabulary=32000, context=4096
    ),
}
#: Tokens per second against raw, and time to the first token; see docs on performance.
GOALS = {"tok_s": 0.95, "ttft": 1.25, "itl_p99": 1.1}
#: What the server is asked with, by kind.
OPTIONS: dict[str, dict[str, Any]] = {
    "server": {"temperature": 0},
    "seeded": {"temperature": 1, "seed": 7},
}
_WORDS = "model server batch token cache request stream engine memory kernel import return".split()


@dataclass
class Result:
    """One closed-loop run. Times in seconds."""

    tokens: int = 0
    wall: float = 0.0
    cpu: float = 0.0
    first: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return self.tokens / self.wall

    @property
    def ttft(self) -> float:
        return percentile(self.first, 50)

    @property
    def itl_p99(self) -> float:
        return percentile(self.between, 99)

    @property
    def cpu_per_token(self) -> float:
        return self.cpu / self.tokens


#: What ran next to each other, by kind.
Turn = dict[str, Result]


def percentile(values: list[float], percent: float) -> float:
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round((len(ordered) - 1) * percent / 100))]


def work(count: int) -> Iterator[tuple[str, int]]:
    """Prompts of about 48 words, and lengths of 32 to 96 tokens so that none stay in step."""
    for number in range(count):
        rng = random.Random(number)
        words = [rng.choice(_WORDS) for _ in range(rng.randint(24, 72))]
        yield f"{rng.randrange(10**9)} {' '.join(words)}", rng.randint(32, 96)


# ---- the raw engine, in a process of its own ---------------------------------------------------


def raw(model_path: str, concurrency: int, count: int, temperature: float) -> Result:
    import mlx.core as mx
    from mlx_lm import load
    from mlx_lm.generate import BatchGenerator
    from mlx_lm.sample_utils import make_sampler

    from pippin_server.engines.mlx import blas

    if mx.default_device() == mx.Device(mx.cpu):
        blas.accelerate()
    model, tokenizer = load(model_path)[:2]
    sampler = make_sampler(temperature)

    def run(jobs: Iterator[tuple[str, int]]) -> Result:
        generator = BatchGenerator(model, stop_tokens=[[t] for t in tokenizer.eos_token_ids])
        result, live = Result(), {}

        def add() -> None:
            job = next(jobs, None)
            if job is None:
                return
            began = time.perf_counter()
            turns = [{"role": "user", "content": job[0]}]
            tokens = tokenizer.apply_chat_template(turns, add_generation_prompt=True)
            (uid,) = generator.insert([tokens], [job[1]], samplers=[sampler])
            live[uid] = [began, None, tokenizer.detokenizer]

        began, cpu = time.perf_counter(), time.process_time()
        for _ in range(concurrency):
            add()
        while live:
            for response in generator.next_generated():
                state, now = live[response.uid], time.perf_counter()
                if state[1] is None:
                    result.first.append(now - state[0])
                else:
                    result.between.append(now - state[1])
                state[1] = now
                result.tokens += 1
                state[2].add_token(response.token)
                _ = state[2].last_segment
                if response.finish_reason:
                    del live[response.uid]
                    add()
        result.wall = time.perf_counter() - began
        result.cpu = time.process_time() - cpu
        generator.close()
        return result

    run(iter(list(work(concurrency))))
    return run(iter(list(work(count))))


# ---- the server, and a client without a library in the way ---------------------------------------


async def ask(url: str, name: str, job: tuple[str, int], options: dict[str, Any]) -> Result:
    host, port = url.removeprefix("http://").split(":")
    body = json.dumps(
        {
            "model": name,
            "messages": [{"role": "user", "content": job[0]}],
            "max_tokens": job[1],
            "stream": True,
            **options,
        }
    ).encode()
    result = Result()
    last = began = time.perf_counter()
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    status = await reader.readline()
    if b" 200 " not in status:
        raise RuntimeError((status + await reader.read()).decode())
    done = False
    while piece := await reader.read(1 << 16):
        now = time.perf_counter()
        events = piece.count(b'"delta":{"content":')
        for _ in range(events):
            (result.between if result.first else result.first).append(now - last)
            last = now
        done = done or b"data: [DONE]" in piece
    writer.close()
    if not done:
        raise RuntimeError("a stream ended without [DONE]")
    result.tokens = job[1]
    result.wall = last - began
    return result


def cpu_seconds(pid: int) -> float:
    """Of a process so far; 0 where /proc does not tell."""
    path = Path(f"/proc/{pid}/stat")
    if not path.exists():
        return 0.0
    fields = path.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def closed_loop(
    server: Running, name: str, concurrency: int, options: dict[str, Any]
) -> Result:
    """A run that warms up, and the one that counts."""
    await run(server, name, concurrency, options, work(concurrency))
    return await run(server, name, concurrency, options, work(count_for(concurrency)))


async def run(
    server: Running,
    name: str,
    concurrency: int,
    options: dict[str, Any],
    jobs: Iterator[tuple[str, int]],
) -> Result:
    """All jobs, so many at once."""
    total = Result()

    async def one() -> None:
        for job in jobs:
            result = await ask(server.url, name, job, options)
            total.tokens += result.tokens
            total.first += result.first
            total.between += result.between

    began, cpu = time.perf_counter(), cpu_seconds(server.process.pid)
    await asyncio.gather(*(one() for _ in range(concurrency)))
    total.wall = time.perf_counter() - began
    total.cpu = cpu_seconds(server.process.pid) - cpu
    return total


def count_for(concurrency: int) -> int:
    return 8 + 3 * concurrency


# ---- side by side --------------------------------------------------------------------------------


def raw_in_a_process(model: Path, concurrency: int, temperature: float) -> Result:
    command = [sys.executable, str(HERE), "--raw", str(model), "--concurrency", str(concurrency)]
    command += ["--temperature", str(temperature)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return Result(**json.loads(done.stdout.splitlines()[-1]))


async def compare(name: str, concurrencies: list[int], rounds: int, directory: Path) -> None:
    from pippin_contract.serverconfig import PromptCacheConfig
    from support import tinymodel
    from support.servers import mlx_config, serving

    model = tinymodel.make(directory / name, tinymodel.Shape(**SHAPES[name]))
    for concurrency in concurrencies:
        turns: list[Turn] = []
        for number in range(rounds):
            raw = await asyncio.to_thread(raw_in_a_process, model, concurrency, 0.0)
            place = directory / f"{name}-{concurrency}-{number}"
            place.mkdir()
            # The raw engine keeps no prompts either, and all rounds ask the same.
            config = mlx_config(
                model,
                served_name=name,
                max_concurrency=32,
                prompt_cache=PromptCacheConfig(enabled=False),
            )
            async with serving(place, config) as server:
                for order in (list(OPTIONS), list(reversed(OPTIONS))):
                    turn = {"raw": raw}
                    for kind in order:
                        turn[kind] = await closed_loop(server, name, concurrency, OPTIONS[kind])
                    turns.append(turn)
        show(name, concurrency, turns)


def show(name: str, concurrency: int, turns: list[Turn]) -> None:
    def median(figure: str, kind: str, against: str = "") -> float:
        found: list[float] = [getattr(turn[kind], figure) for turn in turns]
        beside: list[float] = [getattr(turn[against], figure) if against else 1.0 for turn in turns]
        return statistics.median(one / other for one, other in zip(found, beside, strict=True))

    for kind in ("raw", *OPTIONS):
        against = "server" if kind == "seeded" else "raw"
        print(
            f"{name:5} c={concurrency:<3} {kind:7} {median('rate', kind):8.1f} tok/s "
            f"({median('rate', kind, against):.2f} of {against})  "
            f"TTFT p50 {median('ttft', kind) * 1000:7.1f} ms ({median('ttft', kind, 'raw'):.2f}x)  "
            f"ITL p99 {median('itl_p99', kind) * 1000:6.1f} ms "
            f"({median('itl_p99', kind, 'raw'):.2f}x)  "
            f"CPU {median('cpu_per_token', kind) * 1000:6.2f} ms/token",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="7m,56m")
    parser.add_argument("--concurrency", default="1,4,16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--raw", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    concurrencies = [int(number) for number in asked.concurrency.split(",")]
    if asked.raw:
        (concurrency,) = concurrencies
        result = raw(asked.raw, concurrency, count_for(concurrency), asked.temperature)
        print(json.dumps(asdict(result)))
        return
    print(f"goals: {GOALS['tok_s']} of raw tok/s, TTFT {GOALS['ttft']}x, ITL {GOALS['itl_p99']}x")
    with tempfile.TemporaryDirectory() as directory:
        for name in asked.models.split(","):
            asyncio.run(compare(name, concurrencies, asked.rounds, Path(directory)))


if __name__ == "__main__":
    main()
