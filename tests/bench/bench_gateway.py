#!/usr/bin/env python3
"""The gateway's own process beside its peers on the same work: rate, CPU, delay, streams, memory.

    bench_gateway.py [--seconds 4] [--rounds 3] [--shapes json-sat,sse-512] [--python PATH]
                     [--nginx PATH] [--litellm PATH] [--vllm-router PATH]

Server under test on core 0, upstream and load on core 1. The gateway runs whole: its watches are
fed by an API server of a few lines in here, one model, one key with a limit, access log into a
pipe that is read. Absolute numbers mean nothing elsewhere: look at the ratios of one run.
Needs a C compiler. Peers are found on PATH or where they are said to be, each in an environment of
its own; those that are not there are left out. `--python`: another Python for the gateway, which
has what it imports.
"""

from __future__ import annotations

import argparse
import contextlib
import http.server
import json
import os
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

from pippin_contract import apikeys, native, wire  # noqa: E402
from support.gateway_process import configured  # noqa: E402 - found by the path above

TOOLS = HERE / "gateway"
sys.path[:0] = [str(TOOLS)]

from peers import PEERS, Place, pinned, process, wait_for  # noqa: E402 - found by the path above

#: name -> connections, requests a second (0: as many as go), microseconds between events (-1: none)
SHAPES = {
    "json-100": (32, 100, -1),
    "json-sat": (32, 0, -1),
    "sse-64": (64, 0, 20_000),
    "sse-sat": (16, 0, 0),
    "sse-512": (512, 0, 20_000),
}
#: Shapes of the peers that are asked for less, being slower by far.
GENTLE = ("json-100", "json-sat", "sse-64")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def objects(upstream: int, key: apikeys.MintedKey) -> dict[str, list[dict[str, Any]]]:
    """What the API server holds: one of each kind."""
    meta = {
        "namespace": "bench",
        "resourceVersion": "1",
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    labels = {wire.LABEL_INSTANCE: "m"}
    conditions = [
        {"type": "Ready", "status": "True"},
        {
            "type": wire.ENDPOINT_CONDITION,
            "status": "True",
            "message": f"http://127.0.0.1:{upstream}",
        },
    ]
    return {
        wire.APIKEYS: [
            {
                "metadata": {**meta, "name": "app"},
                "spec": {"models": ["*"], "limits": {"rpm": 10_000_000}},
                "status": {"keys": [{"id": key.key_id, "digest": key.digest}]},
            }
        ],
        wire.MODELDEPLOYMENTS: [{"metadata": {**meta, "name": "m"}, "spec": {"replicas": 1}}],
        "secrets": [],
        "pods": [
            {
                "metadata": {**meta, "name": "m-0", "uid": "u", "labels": labels},
                "status": {"conditions": conditions},
            }
        ],
    }


def api_server(held: dict[str, list[dict[str, Any]]]) -> http.server.ThreadingHTTPServer:
    """Lists, and watches in which nothing happens."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # the name that http.server looks for
            url = urlsplit(self.path)
            self.send_response(200)
            self.send_header("content-type", "application/json")
            if "watch" in parse_qs(url.query):
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                with contextlib.suppress(OSError):
                    while self.rfile.read(1):
                        pass
                return
            kind = url.path.rsplit("/", 1)[1]
            body = json.dumps({"metadata": {"resourceVersion": "1"}, "items": held[kind]}).encode()
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@contextlib.contextmanager
def gateway(python: str, work: Path, api: int, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """As in a Pod of the embedded cluster."""
    kubeconfig = work / "kubeconfig"
    server = f"http://127.0.0.1:{api}"
    kubeconfig.write_text(
        json.dumps(
            {
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": server}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
            }
        )
    )
    environ = {
        "PATH": os.environ["PATH"],
        "KUBECONFIG": str(kubeconfig),
        native.port_variable(wire.HTTP_PORT_NAME): str(port),
        **configured(work),
    }
    command = pinned(0, python, "-m", "pippin_gateway", "run")
    with (
        process(pinned(1, "cat"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as reader,
        process(command, env=environ, stdout=reader.stdin) as running,
    ):
        wait_for(f"http://127.0.0.1:{port}/ready")
        yield running


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def memory(targets: list[tuple[str, int, int | None]], when: str) -> None:
    """Of one process each: a peer's helpers are not counted."""
    sizes = [f"{who} {pss_mib(pid):.0f}" for who, _, pid in targets if pid is not None]
    print(f"memory {when}, MiB PSS: {', '.join(sizes)}")


def measured(load: list[str], pid: int | None) -> dict[str, float]:
    """One run of the load tool, with the CPU that it cost the process."""
    before = cpu_seconds(pid) if pid else 0
    ran = subprocess.run(pinned(1, *load), check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(ran.stdout)
    if pid:
        used = (cpu_seconds(pid) - before) * 1e6
        found["cpu_us_per_request"] = used / max(1, found["ok"])
        found["cpu_us_per_event"] = used / max(1, found["events"])
    return found


def table(results: dict[tuple[str, str], list[dict[str, float]]], shapes: list[str]) -> None:
    median = {
        where: {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        for where, runs in results.items()
    }
    columns = ["req_s", "p50_ms", "p99_ms", "events_s", "delay_p50_ms", "delay_p99_ms"]
    columns += ["cpu_us_per_request", "cpu_us_per_event", "errors"]
    print(f"{'':22}" + "".join(f"{name:>19}" for name in columns))
    for shape in shapes:
        for who in ("direct", *PEERS, "gateway"):
            if (row := median.get((who, shape))) is not None:
                cells = "".join(f"{row.get(name, float('nan')):19.3f}" for name in columns)
                print(f"{shape + ' ' + who:22}{cells}")
    ratios(median, shapes)


def ratios(median: dict[tuple[str, str], dict[str, float]], shapes: list[str]) -> None:
    for shape in shapes:
        mine, floor = median["gateway", shape], median["direct", shape]
        words = [
            f"added p50 {mine['p50_ms'] - floor['p50_ms']:.2f} ms,"
            f" p99 {mine['p99_ms'] - floor['p99_ms']:.2f} ms"
        ]
        if SHAPES[shape][2] >= 0:
            words = [f"delivered {mine['events_s'] / floor['events_s']:.0%} of direct"]
        for name in PEERS:
            if (peer := median.get((name, shape))) is not None:
                words += beside(mine, name, peer)
        print(f"{shape}: " + "; ".join(words))


def beside(mine: dict[str, float], name: str, peer: dict[str, float]) -> list[str]:
    """What the gateway does and takes, against a peer."""
    words = [f"req/s {mine['req_s'] / max(0.01, peer['req_s']):.2f} of {name}"]
    cost = "cpu_us_per_event" if mine["events"] else "cpu_us_per_request"
    share = mine[cost] / max(0.01, peer[cost])
    return [*words, f"CPU {'an event' if mine['events'] else 'a request'} {share:.2f}x {name}"]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--python", default=sys.executable)
    for name, (program, _) in PEERS.items():
        parser.add_argument(f"--{program}", dest=name, default=shutil.which(program))
    parser.add_argument("--shapes", default=",".join(SHAPES))
    return parser.parse_args()


def main() -> None:
    options = arguments()
    shapes = options.shapes.split(",")
    key = apikeys.mint(secrets.token_bytes)
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pippin-bench-")))
        for tool in ("upstream", "load"):
            subprocess.run(
                ["cc", "-O2", "-o", str(work / tool), str(TOOLS / f"{tool}.c")], check=True
            )
        up, mine = free_port(), free_port()
        stack.enter_context(process(pinned(1, str(work / "upstream"), str(up))))
        wait_for(f"http://127.0.0.1:{up}/")
        api = api_server(objects(up, key)).server_address[1]
        ours = stack.enter_context(gateway(options.python, work, api, mine))
        targets: list[tuple[str, int, int | None]] = [("direct", up, None)]
        for name, (_, peer) in PEERS.items():
            if program := getattr(options, name):
                at = Place(work, up, free_port(), key.key)
                targets.append((name, at.port, stack.enter_context(peer(program, at))))
        targets.append(("gateway", mine, ours.pid))
        memory(targets, "at rest")
        results: dict[tuple[str, str], list[dict[str, float]]] = {}
        for _ in range(options.rounds):
            for shape in shapes:
                for who, port, pid in targets:
                    if shape not in GENTLE and who in ("litellm", "vllm_router"):
                        continue
                    connections, rate, gap = SHAPES[shape]
                    numbers = map(str, (connections, options.seconds, rate, gap))
                    load = [str(work / "load"), str(port), key.key, *numbers]
                    results.setdefault((who, shape), []).append(measured(load, pid))
        table(results, shapes)
        memory(targets, "after")


if __name__ == "__main__":
    main()
