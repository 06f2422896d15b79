"""One Pippin for the whole run, and a namespace of its own for every test.

Without KUBECONFIG the suite makes an embedded cluster of its own and removes it at the end. With it
the suite uses that cluster: PIPPIN_E2E_GATEWAY_URL says where its gateway answers,
PIPPIN_E2E_WEIGHTS_URI which weights its nodes have, and PIPPIN_E2E_SAME_MACHINE, when set, that the
nodes' processes are seen from here. PIPPIN_E2E_KIND_FOLLOWS, when set, leaves out what
hack/kind/e2e.sh is about to run in containers.

When a test fails, objects, events and logs are written below PIPPIN_E2E_DUMP, a folder per test.
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest
import weights
from cluster.stack import Stack

from support.dump import dump
from support.e2e import Cluster, Tenant
from support.kubectl import Kubectl

DUMPS = Path(os.environ.get("PIPPIN_E2E_DUMP") or Path(__file__).parents[2] / ".pippin/dump")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    given = "KUBECONFIG" in os.environ
    # Not skipped but left out: hack/kind/e2e.sh runs the ones, hack/test.sh the others.
    of_the_other = "embedded" if given else "containers"
    items[:] = [item for item in items if not item.get_closest_marker(of_the_other)]
    if "PIPPIN_E2E_KIND_FOLLOWS" in os.environ:
        items[:] = [item for item in items if not _is_repeated_on_kind(item)]
    for item in items if given else []:
        if item.get_closest_marker("same_machine") and "PIPPIN_E2E_SAME_MACHINE" not in os.environ:
            item.add_marker(pytest.mark.skip(reason="needs nodes on this machine"))


def _is_repeated_on_kind(item: pytest.Item) -> bool:
    return item.path.parent == Path(__file__).parent and not item.get_closest_marker("embedded")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that failed leaves a folder with what the cluster looked like at that moment."""
    report = yield
    cluster = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and isinstance(cluster, Cluster):
        folder = DUMPS / re.sub(r"[^A-Za-z0-9_-]+", "-", item.name)[:100] / report.when
        dump(cluster.kubectl, folder)
        report.sections.append(("the cluster when it failed", str(folder)))
    return report


@pytest.fixture(scope="session")
def cluster(kubernetes_programs: Path) -> Iterator[Cluster]:
    if "KUBECONFIG" in os.environ:
        yield Cluster(
            kubectl=Kubectl(kubernetes_programs / "kubectl", Path(os.environ["KUBECONFIG"])),
            gateway_url=os.environ["PIPPIN_E2E_GATEWAY_URL"],
            weights_uri=os.environ["PIPPIN_E2E_WEIGHTS_URI"],
        )
        return
    model = weights.prepare()
    with tempfile.TemporaryDirectory(prefix="pippin-e2e-") as home:
        stack = Stack.create(Path(home) / "cluster", kubernetes_programs)
        try:
            stack.start_control_plane()
            stack.join_node("this-machine", [model.parent])
            stack.install_chart()
            yield Cluster(
                kubectl=Kubectl(kubernetes_programs / "kubectl", stack.plane.kubeconfig),
                gateway_url=stack.gateway_url,
                weights_uri=f"file://{model}",
                node_root=stack.node_root,
                control_plane=stack.plane,
            )
        finally:
            stack.remove()


@pytest.fixture
async def tenant(cluster: Cluster) -> AsyncIterator[Tenant]:
    async for one in _tenant(cluster):
        yield one


@pytest.fixture
async def other_tenant(cluster: Cluster) -> AsyncIterator[Tenant]:
    async for one in _tenant(cluster):
        yield one


async def _tenant(cluster: Cluster) -> AsyncIterator[Tenant]:
    name = f"e2e-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    tenant = Tenant(cluster, name)
    yield tenant
    for client in tenant.clients:
        await client.close()
    cluster.kubectl("delete", "namespace", name, "--wait=false")
