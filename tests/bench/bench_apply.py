"""How long from `kubectl apply` to the first token, and from a revocation to the last answer.

    python tests/bench/bench_apply.py [--rounds 5]

The whole product on an embedded cluster with a node that is warm, the echo engine (so that no
weights are loaded), the official client. What Kubernetes and the node take (apply until the Pod's
container runs) is told apart from what Pippin takes.
"""

from __future__ import annotations

import argparse
import base64
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "hack")]

import openai  # noqa: E402
import yaml  # noqa: E402
from cluster import binaries  # noqa: E402 - found by the path above
from cluster.controlplane import ControlPlane  # noqa: E402
from cluster.stack import Stack  # noqa: E402

from pippin_contract import wire  # noqa: E402
from support.manifests import key, model  # noqa: E402

NAMESPACE = "bench"
LIMIT = 60.0
PAUSE = 0.005


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="pippin-bench-") as home:
        stack = Stack.create(Path(home) / "cluster", binaries.directory())
        try:
            stack.start_control_plane()
            stack.join_node("this-machine", [])
            stack.install_chart()
            stack.plane.kubectl("create", "namespace", NAMESPACE)
            measure(stack, rounds)
        finally:
            stack.remove()


def measure(stack: Stack, rounds: int) -> None:
    first_token(stack, "warm-up")
    tokens = [first_token(stack, f"echo-{number}") for number in range(rounds)]
    revoked = [revocation(stack, f"gone-{number}") for number in range(rounds)]
    rows = {
        "apply to first token": [token for token, _ in tokens],
        "of it, apply to container running": [running for _, running in tokens],
        "beyond Kubernetes and the node": [token - running for token, running in tokens],
        "key deleted to refused": revoked,
    }
    for what, seconds in rows.items():
        print(f"{what:<36} median {statistics.median(seconds):.2f} s, most {max(seconds):.2f} s")


def first_token(stack: Stack, name: str) -> tuple[float, float]:
    """Seconds from apply to the first token, and to the container running."""
    apply(stack.plane, key(name, NAMESPACE))
    client = client_of(stack, name)
    until(lambda: accepted(client))
    begun = time.monotonic()
    apply(stack.plane, model(name, NAMESPACE))
    running = 0.0

    def answered() -> bool:
        nonlocal running
        running = running or (time.monotonic() - begun if is_running(stack.plane, name) else 0.0)
        try:
            return first_words(client, name)
        except (openai.NotFoundError, openai.InternalServerError):
            return False

    until(answered)
    return time.monotonic() - begun, running


def revocation(stack: Stack, name: str) -> float:
    """Seconds from the deletion of a key to the first refusal, asking without a pause."""
    apply(stack.plane, key(name, NAMESPACE))
    client = client_of(stack, name)
    until(lambda: accepted(client))
    stack.plane.api.delete(f"/apis/{wire.API_VERSION}/namespaces/{NAMESPACE}/apikeys/{name}")
    deleted = time.monotonic()
    until(lambda: not accepted(client))
    return time.monotonic() - deleted


def first_words(client: openai.OpenAI, name: str) -> bool:
    messages: Any = [{"role": "user", "content": "hello"}]
    with client.chat.completions.create(model=name, messages=messages, stream=True) as stream:
        return any(chunk.choices and chunk.choices[0].delta.content for chunk in stream)


def accepted(client: openai.OpenAI) -> bool:
    try:
        client.models.list()
    except openai.AuthenticationError:
        return False
    return True


def client_of(stack: Stack, name: str) -> openai.OpenAI:
    path = f"/api/v1/namespaces/{NAMESPACE}/secrets/{name}-apikey"
    until(lambda: stack.plane.api.ok(path))
    data = stack.plane.api.get(path)["data"]
    secret = base64.b64decode(data[wire.SECRET_API_KEY]).decode()
    return openai.OpenAI(api_key=secret, base_url=f"{stack.gateway_url}/v1", max_retries=0)


def is_running(plane: ControlPlane, name: str) -> bool:
    query = f"labelSelector={wire.LABEL_INSTANCE}%3D{name}"
    pods = plane.api.get(f"/api/v1/namespaces/{NAMESPACE}/pods?{query}")["items"]
    return any(
        "running" in container["state"]
        for pod in pods
        for container in pod["status"].get("containerStatuses", [])
    )


def apply(plane: ControlPlane, body: dict[str, Any]) -> None:
    plane.kubectl("apply", "-f-", stdin=yaml.safe_dump(body))


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT
    while not true():
        if time.monotonic() > deadline:
            sys.exit(f"not within {LIMIT:.0f} s")
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
