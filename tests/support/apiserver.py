"""Real control planes for tests: fixtures over hack/cluster. Loopback only, no root."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import binaries
from cluster.components import BARE, FULL
from cluster.controlplane import ControlPlane
from cluster.processes import start_time

_OWNER = "owner"


@pytest.fixture(scope="session")
def kubernetes_programs() -> Path:
    """The folder with etcd, kube-*, kubectl and helm. Never skips: it builds them or fails."""
    try:
        return binaries.directory()
    except binaries.NotBuilt as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def control_plane(kubernetes_programs: Path) -> Iterator[ControlPlane]:
    """etcd and API server: objects are stored and checked, nothing acts on them."""
    with running_control_plane(kubernetes_programs, BARE) as plane:
        yield plane


@pytest.fixture(scope="session")
def full_control_plane(kubernetes_programs: Path) -> Iterator[ControlPlane]:
    """With controllers, scheduler and serving-approver: Deployments make Pods, nodes may join."""
    with running_control_plane(kubernetes_programs, FULL) as plane:
        yield plane


@pytest.fixture
def namespace(control_plane: ControlPlane) -> str:
    """A fresh namespace in `control_plane`."""
    return new_namespace(control_plane)


def new_namespace(plane: ControlPlane) -> str:
    """A namespace of its own for one test; it goes with the control plane."""
    name = f"test-{secrets.token_hex(4)}"
    plane.api.create("/api/v1/namespaces", {"metadata": {"name": name}})
    return name


@contextlib.contextmanager
def running_control_plane(programs: Path, names: tuple[str, ...]) -> Iterator[ControlPlane]:
    """A control plane of one's own, removed without trace at the end."""
    home = Path(tempfile.gettempdir()) / f"pippin-tests-{os.getuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    _sweep(home)
    instance = Path(tempfile.mkdtemp(dir=home))
    (instance / _OWNER).write_text(f"{os.getpid()} {start_time(os.getpid())}")
    plane = ControlPlane.create(instance / "cluster", programs)
    try:
        plane.start(names)
        yield plane
    finally:
        plane.remove()
        shutil.rmtree(instance)


def _sweep(home: Path) -> None:
    """Remove what test runs that were killed have left running."""
    for instance in home.iterdir():
        with contextlib.suppress(FileNotFoundError):
            pid, _, started = (instance / _OWNER).read_text().partition(" ")
            if start_time(int(pid)) == started:
                continue
            with contextlib.suppress(FileNotFoundError):
                ControlPlane.open(instance / "cluster").remove()
            shutil.rmtree(instance)
