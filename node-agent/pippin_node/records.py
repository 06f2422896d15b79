"""Where everything of the agent and of its Pods lies on this machine, and how it is written.

ROOT/                         0700; one agent at a time (agent.lock)
  node.json                   name of the Node and address of the API server
  node.kubeconfig kubelet-client.pem serving.pem ca.crt
  pods/UID/                   one Pod, removed when its object is gone
    pod.json                  the manifest as last seen
    ports.json                container -> port name -> loopback port
    root/                     what the process sees as / (PIPPIN_ROOT): links into volumes/
    volumes/NAME/             content of one volume
    containers/NAME/ATTEMPT/  one start of a container: see shim.py
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]

#: Attempts of a container whose logs and exit are kept: the current one and the one before.
KEEP_ATTEMPTS = 2


def write_private(path: Path, content: bytes) -> None:
    """Replace a file at once, readable by its owner only."""
    temporary = path.with_name(f".{path.name}.tmp")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    write_private(path, json.dumps(value).encode())


def read_json(path: Path) -> Json | None:
    """The object in the file; None when there is none or a crash left it unfinished."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None


@dataclass(frozen=True)
class PodDir:
    """The directory of one Pod."""

    path: Path

    @property
    def manifest(self) -> Path:
        return self.path / "pod.json"

    @property
    def ports(self) -> Path:
        return self.path / "ports.json"

    @property
    def root(self) -> Path:
        return self.path / "root"

    @property
    def volumes(self) -> Path:
        return self.path / "volumes"

    @property
    def mounted(self) -> Path:
        """Exists once all volumes were laid out: a later start needs no API server."""
        return self.path / "mounted"

    def container(self, name: str) -> Path:
        return self.path / "containers" / name

    def attempt(self, name: str, number: int) -> Path:
        return self.container(name) / str(number)

    def attempts(self, name: str) -> list[int]:
        """The attempts on record, oldest first."""
        try:
            entries = os.listdir(self.container(name))
        except FileNotFoundError:
            return []
        return sorted(int(entry) for entry in entries if entry.isdecimal())

    def containers(self) -> list[str]:
        try:
            return sorted(os.listdir(self.path / "containers"))
        except FileNotFoundError:
            return []

    def prepare(self, pod: Json) -> None:
        """Make the directories and note the manifest, so that a restarted agent knows the Pod."""
        for directory in (self.path, self.root, self.volumes):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(self.manifest, pod)

    def forget_old_attempts(self, name: str) -> None:
        for number in self.attempts(name)[:-KEEP_ATTEMPTS]:
            shutil.rmtree(self.attempt(name, number), ignore_errors=True)

    def remove(self) -> None:
        """Delete the directory; links are removed, what they point to is not."""
        shutil.rmtree(self.path, ignore_errors=True)


def pod_dirs(root: Path) -> Iterator[PodDir]:
    """The Pods on record under the agent's root."""
    try:
        entries = sorted(os.listdir(root / "pods"))
    except FileNotFoundError:
        return
    for entry in entries:
        yield PodDir(root / "pods" / entry)
