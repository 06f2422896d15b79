"""Become a node of a cluster: bootstrap credentials in, the node's own certificate out.

What is left in the root: node.json, node.kubeconfig, kubelet-client.pem, ca.crt. The bootstrap
token is not kept.
"""

from __future__ import annotations

import json
from pathlib import Path

from . import certificates
from .client import Client
from .records import Json, read_json, write_json, write_private

CLIENT_BUNDLE = "kubelet-client.pem"
KUBECONFIG = "node.kubeconfig"


class NotJoined(Exception):
    """The root holds no identity yet."""


async def join(bootstrap: Client, root: Path, name: str, wait_seconds: float) -> None:
    """Get the node's client certificate and write its kubeconfig."""
    bundle = await certificates.obtain(
        bootstrap, certificates.CLIENT_SIGNER, name, (), wait_seconds
    )
    make_root(root)
    write_private(root / CLIENT_BUNDLE, bundle)
    write_private(root / "ca.crt", bootstrap.ca_bytes())
    write_private(root / KUBECONFIG, json.dumps(kubeconfig(root, bootstrap, name)).encode())
    write_json(root / "node.json", {"name": name, "server": bootstrap.server})


def make_root(root: Path) -> None:
    """The agent's directory, for its owner's eyes only."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    root.chmod(0o700)


def kubeconfig(root: Path, bootstrap: Client, name: str) -> Json:
    """YAML is a superset of JSON: kubectl reads this as it is."""
    cluster: Json = {"server": bootstrap.server}
    if bootstrap.ca_bytes():
        cluster["certificate-authority"] = str(root / "ca.crt")
    user = {
        "client-certificate": str(root / CLIENT_BUNDLE),
        "client-key": str(root / CLIENT_BUNDLE),
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "users": [{"name": f"system:node:{name}", "user": user}],
        "contexts": [
            {"name": "node", "context": {"cluster": "cluster", "user": f"system:node:{name}"}}
        ],
        "current-context": "node",
    }


def joined_name(root: Path) -> str:
    """The name this root joined under. Raises NotJoined."""
    node = read_json(root / "node.json")
    if node is None or not (root / KUBECONFIG).exists():
        raise NotJoined(f"{root} has not joined a cluster: run `pippin-node join` first")
    return str(node["name"])
