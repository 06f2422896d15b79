"""A real control plane with a real node agent whose programs are toys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from cluster.controlplane import ControlPlane

from support.apiserver import new_namespace
from support.eventually import eventually
from support.kubectl import Kubectl
from support.nodeagent import NodeAgent


@pytest.fixture(scope="session")
def node_agent(
    full_control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NodeAgent]:
    """One joined and running agent for all tests of this layer."""
    base = tmp_path_factory.mktemp("node")
    agent = NodeAgent(full_control_plane, base / "root", "toy")
    agent.flags = [f"--allow-host-path={base / 'shared'}"]
    (base / "shared").mkdir()
    agent.join()
    agent.start()
    asyncio.run(agent.ready())
    yield agent
    agent.reset()
    assert not agent.root.exists()


@pytest.fixture
async def kubectl(node_agent: NodeAgent) -> AsyncIterator[Kubectl]:
    """kubectl in a namespace of the test's own, where Pods may be created; emptied at the end."""
    if node_agent.process is None:
        node_agent.start()
    name = new_namespace(node_agent.plane)
    scoped = node_agent.kubectl.within(name)
    account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
    await eventually(lambda: node_agent.plane.api.ok(account))
    yield scoped
    scoped("delete", "deployments,replicasets,pods", "--all", "--grace-period=1", "--wait=true")


@pytest.fixture
def shared(node_agent: NodeAgent) -> Path:
    """The host directory that the agent lets Pods mount."""
    return node_agent.root.parent / "shared"
