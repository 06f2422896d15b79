"""What the gateway's bench measures beside it: each one process on one core that knows one key and
one model, before the same upstream. A peer that is not installed is left out.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

LITELLM = """
model_list:
  - model_name: m
    litellm_params: {{model: openai/m, api_base: "http://127.0.0.1:{upstream}/v1", api_key: none}}
litellm_settings: {{telemetry: false, drop_params: true}}
general_settings: {{master_key: "{key}"}}
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a peer works: its files, the port of the upstream, its own, and the key it takes."""

    work: Path
    upstream: int
    port: int
    key: str


#: Starts a program for a place; in it, the pid of the process that does the work.
Peer = Callable[[str, Place], AbstractContextManager[int]]


@contextlib.contextmanager
def nginx(program: str, at: Place) -> Iterator[int]:
    """The floor: one worker that checks a key and a rate."""
    config = NGINX.format(upstream=at.upstream, port=at.port, key=at.key)
    (at.work / "nginx.conf").write_text(config)
    command = [program, "-p", str(at.work), "-c", "nginx.conf", "-e", "stderr"]
    with process(pinned(0, *command)) as running:
        wait_for(f"http://127.0.0.1:{at.port}/")
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text()
        yield int(children.split()[0])


@contextlib.contextmanager
def litellm(program: str, at: Place) -> Iterator[int]:
    """LiteLLM's proxy: one worker, one key, no database."""
    config = at.work / "litellm.yaml"
    config.write_text(LITELLM.format(upstream=at.upstream, key=at.key))
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(at.work),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    command = [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(at.port)]
    with process(pinned(0, *command), env=environ, stdout=subprocess.DEVNULL) as running:
        wait_for(f"http://127.0.0.1:{at.port}/health/liveliness")
        yield running.pid


@contextlib.contextmanager
def vllm_router(program: str, at: Place) -> Iterator[int]:
    """The router of vLLM's production stack: one backend, which knows one model; it checks no key
    and counts nothing."""
    command = [program, "--host", "127.0.0.1", "--port", str(at.port), "--static-models", "m"]
    command += ["--service-discovery", "static", "--routing-logic", "roundrobin"]
    command += ["--static-backends", f"http://127.0.0.1:{at.upstream}"]
    environ = {"PATH": os.environ["PATH"], "HOME": str(at.work)}
    with process(pinned(0, *command), env=environ, stdout=subprocess.DEVNULL) as running:
        wait_for(f"http://127.0.0.1:{at.port}/health")
        yield running.pid


PEERS: dict[str, tuple[str, Peer]] = {
    "nginx": ("nginx", nginx),
    "litellm": ("litellm", litellm),
    "vllm_router": ("vllm-router", vllm_router),
}


def pinned(core: int, *command: str) -> list[str]:
    """On one core, where that can be said."""
    taskset = shutil.which("taskset")
    return [taskset, "-c", str(core), *command] if taskset else list(command)


@contextlib.contextmanager
def process(command: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Ends with the block."""
    running = subprocess.Popen(command, **options)
    try:
        yield running
    finally:
        running.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(5)
        running.kill()
        running.wait()


def wait_for(url: str, within: float = 120) -> None:
    """Until something answers there, if only that it wants a key."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=1)
            return
        except urllib.error.HTTPError as error:
            if error.code in (401, 404):
                return
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit(f"nothing answers at {url}")
