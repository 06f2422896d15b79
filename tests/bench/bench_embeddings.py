"""32 short texts embedded over HTTP: in one request, in 32 at once, and one after the other.

    python tests/bench/bench_embeddings.py [--rounds 20]

Yardstick: the same model without HTTP in a process of its own, all 32 in one call and one by one.
MiniLM on this machine's CPU or GPU. The best round counts, since a shared machine only takes away.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2] / "hack")]

WORDS = "model server batch token cache request stream engine memory kernel import return".split()
#: About 10 tokens each.
TEXTS = [" ".join(WORDS[(n + i) % len(WORDS)] for i in range(8)) for n in range(32)]


def raw(path: str, rounds: int) -> dict[str, float]:
    """Texts per second, best round."""
    from pippin_server.engines.mlx.args import Args
    from pippin_server.engines.mlx.sentences import load
    from pippin_server.engines.mlx.texts import Texts

    model = load(Path(path), Args())
    texts = Texts(Path(path), limit=model.context_length, vocabulary=model.vocabulary)

    def together() -> None:
        model.embed(texts.encode(TEXTS))

    def apart() -> None:
        for text in TEXTS:
            model.embed(texts.encode([text]))

    return {call.__name__: best(call, rounds) for call in (together, apart)}


def best(call: Callable[[], object], rounds: int) -> float:
    call()
    return max(len(TEXTS) / timed(call) for _ in range(rounds))


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


class Connection:
    """Kept open, without a client library in the way: with one, 32 requests take a good part of the
    time that the model takes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, texts: object) -> None:
        asked = {"model": "minilm", "input": texts, "encoding_format": "base64"}
        body = json.dumps(asked).encode()
        self.writer.write(
            b"POST /v1/embeddings HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        answer = await self.reader.readexactly(length)
        if b" 200 " not in head:
            raise RuntimeError(answer.decode())


async def measure(rounds: int) -> None:
    import weights

    from support.servers import mlx_config, serving

    path = await asyncio.to_thread(weights.prepare, source=weights.MINILM)
    before = await asyncio.to_thread(raw_in_a_process, path, rounds)
    with tempfile.TemporaryDirectory() as directory:
        config = mlx_config(path, served_name="minilm", model={"task": "embedding"})
        async with serving(Path(directory), config) as server:
            host, port = server.url.removeprefix("http://").split(":")
            opened = [await asyncio.open_connection(host, int(port)) for _ in TEXTS]
            rates = await served([Connection(*streams) for streams in opened], rounds)
            for _, writer in opened:
                writer.close()
    after = await asyncio.to_thread(raw_in_a_process, path, rounds)
    for kind, rate in rates.items():
        against = "apart" if kind == "one_by_one" else "together"
        without = max(before[against], after[against])
        share = f"{rate / without:.2f} of the model without HTTP, {against}: {without:.0f}"
        print(f"{kind:12} {rate:7.0f} texts/s ({share})")


def raw_in_a_process(path: Path, rounds: int) -> dict[str, float]:
    command = [sys.executable, str(HERE), "--raw", str(path), "--rounds", str(rounds)]
    done = subprocess.run(command, capture_output=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


async def served(connections: list[Connection], rounds: int) -> dict[str, float]:
    async def one_request() -> None:
        await connections[0].ask(TEXTS)

    async def at_once() -> None:
        asked = zip(connections, TEXTS, strict=True)
        await asyncio.gather(*(connection.ask(text) for connection, text in asked))

    async def one_by_one() -> None:
        for text in TEXTS:
            await connections[0].ask(text)

    calls = (one_request, at_once, one_by_one)
    return {call.__name__: await best_of(call, rounds) for call in calls}


async def best_of(call: Callable[[], Awaitable[None]], rounds: int) -> float:
    await call()
    rates = []
    for _ in range(rounds):
        began = time.perf_counter()
        await call()
        rates.append(len(TEXTS) / (time.perf_counter() - began))
    return max(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--raw", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.raw:
        print(json.dumps(raw(asked.raw, asked.rounds)))
        return
    asyncio.run(measure(asked.rounds))


if __name__ == "__main__":
    main()
