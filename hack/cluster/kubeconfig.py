"""Private kubeconfig files: a URL, the authority that vouches for it, and one user."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import yaml

from .pki import Pair, write_private


def for_certificate(path: Path, url: str, authority: Path, client: Pair) -> Path:
    """Write a kubeconfig whose user is a client certificate."""
    user = {
        "client-certificate-data": _encoded(client.cert),
        "client-key-data": _encoded(client.key),
    }
    return _write(path, url, authority, user)


def for_token(path: Path, url: str, authority: Path, token: str) -> Path:
    """Write a kubeconfig whose user is a bearer token."""
    return _write(path, url, authority, {"token": token})


def _write(path: Path, url: str, authority: Path, user: dict[str, Any]) -> Path:
    cluster = {"server": url, "certificate-authority-data": _encoded(authority)}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "pippin", "cluster": cluster}],
        "users": [{"name": path.stem, "user": user}],
        "contexts": [{"name": "pippin", "context": {"cluster": "pippin", "user": path.stem}}],
        "current-context": "pippin",
    }
    write_private(path, yaml.safe_dump(document, sort_keys=False).encode())
    return path


def _encoded(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()
