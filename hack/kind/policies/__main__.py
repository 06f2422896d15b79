"""Keeps every node's nft table as the cluster's NetworkPolicies want it, until the cluster is gone.

Runs beside the nodes, on the machine: they hold nothing that could do it. It asks for everything
once a second instead of watching: a round costs 5 ms, misses nothing, and outlives restarts of the
API server without a line for it; a watch of three kinds would save that and need all of them.

Usage: python -m kind.policies PID_FILE     (with KUBECONFIG and DOCKER_HOST)

A line of its log says when the policies of the beginning are in force.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx2
from lightkube import Client, KubeConfig
from lightkube.resources.core_v1 import Namespace, Pod
from lightkube.resources.networking_v1 import NetworkPolicy

from .tables import tables

ROUND_SECONDS = 1.0
NFT_SECONDS = 20


def main() -> None:
    """Round after round; ends by itself when the kubeconfig is removed."""
    Path(sys.argv[1]).write_text(str(os.getpid()))
    kubeconfig = Path(os.environ["KUBECONFIG"])
    client = Client(KubeConfig.from_file(kubeconfig))
    applied: dict[str, str] = {}
    in_force = False
    while kubeconfig.exists():
        try:
            keep(client, applied)
        except (httpx2.HTTPError, OSError, subprocess.SubprocessError) as error:
            say(f"looking again in {ROUND_SECONDS:.0f} s: {error!r}")
        else:
            if not in_force:
                say("the policies are in force")
            in_force = True
        time.sleep(ROUND_SECONDS)


def keep(client: Client, applied: dict[str, str]) -> None:
    """Bring every node whose table is no longer right up to date; remember what it has."""
    # Namespaces last: those of all the Pods seen are there then.
    policies = [*client.list(NetworkPolicy, namespace="*")]
    pods = [*client.list(Pod, namespace="*")]
    namespaces = [*client.list(Namespace)]
    for node, text in tables(policies, pods, namespaces).items():
        if applied.get(node) != text:
            apply(node, text)
            applied[node] = text
            say(f"{node}: {text.count(' drop')} chains")


def apply(node: str, text: str) -> None:
    """Replace the table on the node. Raises OSError with nft's words when it refuses."""
    done = subprocess.run(
        ["docker", "exec", "-i", node, "nft", "-f", "-"],
        input=text,
        capture_output=True,
        text=True,
        timeout=NFT_SECONDS,
    )
    if done.returncode:
        raise OSError(f"{node}: {done.stderr.strip()}")


def say(words: str) -> None:
    """One line of the log."""
    print(time.strftime("%H:%M:%S"), words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
