"""The operator under the chart's own rights, against a real API server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.controlplane import ControlPlane

from support.operator_process import Cluster, Operator, install, running_operator


@pytest.fixture(scope="session")
def operator_kubeconfig(
    control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return install(control_plane, tmp_path_factory.mktemp("operator"))


@pytest.fixture(scope="session")
def cluster(control_plane: ControlPlane, operator_kubeconfig: Path) -> Cluster:
    """The API server with Pippin's kinds; nothing acts on them but an operator that a test runs."""
    return Cluster(control_plane)


@pytest.fixture(scope="module")
def operator(
    cluster: Cluster, operator_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operator]:
    """One that runs for the tests of a module."""
    with running_operator(operator_kubeconfig, tmp_path_factory.mktemp("log")) as running:
        yield running
