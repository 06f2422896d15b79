#!/usr/bin/env python3
"""The gateway's own process beside nginx on the same work: rate, CPU, delay, streams, memory.

    bench_gateway.py [--seconds 4] [--rounds 3] [--nginx PATH] [--shapes json-sat,sse-512]

Server under test on core 0, upstream and load on core 1. The gateway runs whole: its watches are
fed by an API server of a few lines in here, one model, one key with a limit, access log into a
pipe that is read. Absolute numbers mean nothing elsewhere: look at the ratios of one run.
Needs a C compiler; without nginx the ratios are left out.
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
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

from pippin_contract import apikeys, native, wire  # noqa: E402
from support.gateway_process import configured  # noqa: E402 - found by the path above

TOOLS = HERE / "gateway"
#: name -> connections, requests a second (0: as many as go), microseconds between events (-1: none)
SHAPES = {
    "json-100": (32, 100, -1),
    "json-sat": (32, 0, -1),
    "sse-64": (64, 0, 20_000),
    "sse-sat": (16, 0, 0),
    "sse-512": (512, 0, 20_000),
}
NGINX = """
daemon off; worker_processes 1; error_log stderr error; pid nginx.pid;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path t; proxy_temp_path t; fastcgi_temp_path t;
  uwsgi_temp_path t; scgi_temp_path t;
  upstream up {{ server 127.0.0.1:{upstream}; keepalive 512; }}
  keepalive_requests 100000000; client_body_buffer_size 64k;
  map_hash_bucket_size 256;
  map $http_authorization $tenant {{ default ""; "Bearer {key}" "t1"; }}
  limit_req_zone $tenant zone=k:10m rate=100000r/s;
  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{
    if ($tenant = "") {{ return 401; }} limit_req zone=k burst=10000 nodelay;
    proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";
    proxy_set_header X-Tenant $tenant; proxy_buffering off; }} }}
}}
"""


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


def pinned(core: int, *command: str) -> list[str]:
    taskset = shutil.which("taskset")
    return [taskset, "-c", str(core), *command] if taskset else list(command)


@contextlib.contextmanager
def process(command: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    running = subprocess.Popen(command, **options)
    try:
        yield running
    finally:
        running.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(5)
        running.kill()
        running.wait()


@contextlib.contextmanager
def gateway(work: Path, api: int, port: int) -> Iterator[subprocess.Popen[bytes]]:
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
    command = pinned(0, sys.executable, "-m", "pippin_gateway", "run")
    with (
        process(pinned(1, "cat"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as reader,
        process(command, env=environ, stdout=reader.stdin) as running,
    ):
        wait_for(f"http://127.0.0.1:{port}/ready")
        yield running


@contextlib.contextmanager
def nginx(work: Path, program: str, upstream: int, port: int, key: str) -> Iterator[int]:
    """The floor: one worker that checks a key and a rate."""
    (work / "nginx.conf").write_text(NGINX.format(upstream=upstream, port=port, key=key))
    with process(
        pinned(0, program, "-p", str(work), "-c", "nginx.conf", "-e", "stderr")
    ) as running:
        wait_for(f"http://127.0.0.1:{port}/")
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text()
        yield int(children.split()[0])


def wait_for(url: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=1)
            return
        except urllib.error.HTTPError as error:
            if error.code == 401:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"nothing answers at {url}")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


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
        for who in ("direct", "nginx", "gateway"):
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
        if (peer := median.get(("nginx", shape))) is not None:
            words.append(f"req/s {mine['req_s'] / peer['req_s']:.2f} of nginx")
            if mine["events"]:
                per_event = mine["cpu_us_per_event"] / max(0.01, peer["cpu_us_per_event"])
                words.append(f"CPU an event {per_event:.1f}x nginx")
        print(f"{shape}: " + "; ".join(words))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--nginx", default=shutil.which("nginx"))
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
        up, mine, theirs = free_port(), free_port(), free_port()
        stack.enter_context(process(pinned(1, str(work / "upstream"), str(up))))
        wait_for(f"http://127.0.0.1:{up}/")
        api = api_server(objects(up, key))
        ours = stack.enter_context(gateway(work, api.server_address[1], mine))
        targets: list[tuple[str, int, int | None]] = [
            ("direct", up, None),
            ("gateway", mine, ours.pid),
        ]
        if options.nginx:
            peer = stack.enter_context(nginx(work, options.nginx, up, theirs, key.key))
            targets.insert(1, ("nginx", theirs, peer))
        print(f"memory at rest: gateway {pss_mib(ours.pid):.0f} MiB PSS")
        results: dict[tuple[str, str], list[dict[str, float]]] = {}
        for _ in range(options.rounds):
            for shape in shapes:
                for who, port, pid in targets:
                    connections, rate, gap = SHAPES[shape]
                    numbers = map(str, (connections, options.seconds, rate, gap))
                    load = [str(work / "load"), str(port), key.key, *numbers]
                    results.setdefault((who, shape), []).append(measured(load, pid))
        table(results, shapes)
        print(f"memory after: gateway {pss_mib(ours.pid):.0f} MiB PSS")


if __name__ == "__main__":
    main()
