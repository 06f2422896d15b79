"""How fast many ModelDeployments are settled, how often is written, and what stillness costs.

    python tests/bench/bench_operator.py [--count 200]

A control plane without controllers, the operator with the chart's rights, and, side by side in the
same run, a bare client that applies the same children without an operator. Absolute numbers depend
on the machine: read the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "hack")]

from cluster import binaries  # noqa: E402 - found by the path above
from cluster.components import BARE  # noqa: E402
from cluster.controlplane import ControlPlane  # noqa: E402

from pippin_operator.api.resources import CHILDREN, MODELDEPLOYMENT  # noqa: E402
from pippin_operator.cluster import Cluster, Credentials  # noqa: E402
from pippin_operator.reconcile.modeldeployment import parse  # noqa: E402
from pippin_operator.render.children import render  # noqa: E402
from pippin_operator.render.context import RenderContext  # noqa: E402
from pippin_operator.telemetry import Metrics  # noqa: E402
from support.apiserver import new_namespace, running_control_plane  # noqa: E402
from support.eventually import eventually  # noqa: E402
from support.manifests import model  # noqa: E402
from support.operator_process import Operator, install  # noqa: E402

AT_ONCE = 32
STILL_SECONDS = 20
PATCHES = 60
_TICKS = 100


@dataclass
class Table:
    """Rows of the answer."""

    rows: list[tuple[str, str]] = field(default_factory=list)

    def add(self, what: str, value: float, unit: str = "") -> None:
        self.rows.append((what, f"{value:,.3g} {unit}".strip()))

    def print(self) -> None:
        width = max(len(what) for what, _ in self.rows)
        for what, value in self.rows:
            print(f"{what:<{width}}  {value}")


class Deployments(threading.Thread):
    """When a Deployment was first seen with so many replicas."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        super().__init__(daemon=True)
        self._plane, self._path = plane, f"/apis/apps/v1/namespaces/{namespace}/deployments"
        self._seen: dict[tuple[str, int], float] = {}
        self._news = threading.Condition()

    def run(self) -> None:
        version = self._plane.api.get(self._path)["metadata"]["resourceVersion"]
        for event in self._plane.api.watch(self._path, version):
            body = event["object"]
            key = (body["metadata"]["name"], body["spec"]["replicas"])
            with self._news:
                self._seen.setdefault(key, time.perf_counter())
                self._news.notify_all()

    def seen(self, name: str, replicas: int) -> float:
        """Blocks until it was, at most a minute."""
        key = (name, replicas)
        with self._news:
            assert self._news.wait_for(lambda: key in self._seen, timeout=60)
            return self._seen[key]


async def bench(count: int) -> Table:
    table = Table()
    table.add("ModelDeployments", count)
    with (
        tempfile.TemporaryDirectory() as scratch,
        running_control_plane(binaries.directory(), BARE) as plane,
    ):
        operator = Operator(install(plane, Path(scratch)), Path(scratch) / "operator.log")
        client = Cluster(Credentials(str(plane.kubeconfig)), Metrics())
        try:
            await _floor(client, plane, count, table)
            await operator.start()
            namespace = await _all_children(client, plane, operator, count, table)
            await _patches(client, plane, namespace, table)
            await _stillness(operator, table)
            await _restart(operator, table)
        finally:
            await client.close()
            if operator.process is not None:
                operator.stop()
    return table


def _name(number: int) -> str:
    return f"m{number}"


async def _each(count: int, work: Any) -> None:
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        async with slots:
            await work(number)

    await asyncio.gather(*(one(number) for number in range(count)))


async def _floor(client: Cluster, plane: ControlPlane, count: int, table: Table) -> None:
    """The same children, applied by a client that does nothing else."""
    namespace = new_namespace(plane)
    context = RenderContext("pippin-server:0.1.0", "IfNotPresent", (), monitoring_api=False)

    async def apply(number: int) -> None:
        body = model(_name(number), namespace)
        body["metadata"]["uid"] = "none"
        for child in render(parse(body), context):
            del child["metadata"]["ownerReferences"]
            await client.apply(child, CHILDREN[child["kind"]], force=True)

    started = time.perf_counter()
    await _each(count, apply)
    table.add("bare client: all children applied", time.perf_counter() - started, "s")


async def _all_children(
    client: Cluster, plane: ControlPlane, operator: Operator, count: int, table: Table
) -> str:
    namespace = new_namespace(plane)
    cpu = _cpu(operator)

    async def create(number: int) -> None:
        await client.create(model(_name(number), namespace), MODELDEPLOYMENT)

    async def exist() -> bool:
        for resource in ("/apis/apps/v1", "deployments"), ("/api/v1", "services"):
            path = f"{resource[0]}/namespaces/{namespace}/{resource[1]}?limit=1"
            page = plane.api.get(path)
            left = page["metadata"].get("remainingItemCount", 0)
            if len(page["items"]) + left < count:
                return False
        return True

    started = time.perf_counter()
    await _each(count, create)
    table.add("all created", time.perf_counter() - started, "s")
    await eventually(exist, within=300)
    table.add("operator: all children exist", time.perf_counter() - started, "s")
    await _quiet(operator)
    table.add("writes per object", operator.writes() / count)
    table.add("CPU until settled", _cpu(operator) - cpu, "s")
    table.add("memory", _memory(operator), "MiB")
    return namespace


async def _patches(client: Cluster, plane: ControlPlane, namespace: str, table: Table) -> None:
    """Replicas changed one after the other, back to back on the same object too."""
    watch = Deployments(plane, namespace)
    watch.start()
    latencies = []
    for step in range(PATCHES):
        name, replicas = _name(step % 20), 2 + step
        patch = {
            "apiVersion": MODELDEPLOYMENT.api_version,
            "kind": MODELDEPLOYMENT.kind,
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"replicas": replicas},
        }
        started = time.perf_counter()
        await client.apply(patch, MODELDEPLOYMENT, force=True)
        seen = await asyncio.to_thread(watch.seen, name, replicas)
        latencies.append((seen - started) * 1000)
    latencies.sort()
    table.add("patch to child changed, median", statistics.median(latencies), "ms")
    table.add("patch to child changed, p99", latencies[int(len(latencies) * 0.99)], "ms")


async def _stillness(operator: Operator, table: Table) -> None:
    await _quiet(operator)
    writes, cpu = operator.writes(), _cpu(operator)
    await asyncio.sleep(STILL_SECONDS)
    table.add(f"writes in {STILL_SECONDS} s once settled", operator.writes() - writes)
    table.add("CPU while settled", 100 * (_cpu(operator) - cpu) / STILL_SECONDS, "%")


async def _restart(operator: Operator, table: Table) -> None:
    operator.stop()
    started = time.perf_counter()
    await operator.start()
    table.add("restart until ready", time.perf_counter() - started, "s")
    await _quiet(operator)
    table.add("restart until quiet", time.perf_counter() - started - 2, "s")
    table.add("writes after restart", operator.writes())


async def _quiet(operator: Operator) -> None:
    """Until no request has been made for two seconds."""
    last, since = "", time.monotonic()
    while time.monotonic() - since < 2:
        lines = operator.read("/metrics").splitlines()
        now = "".join(line for line in lines if "reconciles_total{" in line)
        if now != last:
            last, since = now, time.monotonic()
        await asyncio.sleep(0.2)


def _stat(operator: Operator) -> str:
    assert operator.process is not None
    return f"/proc/{operator.process.pid}"


def _cpu(operator: Operator) -> float:
    fields = Path(_stat(operator), "stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _memory(operator: Operator) -> float:
    lines = Path(_stat(operator), "status").read_text().splitlines()
    (peak,) = [line for line in lines if line.startswith("VmHWM")]
    return int(peak.split()[1]) / 1024


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--count", type=int, default=200)
    asyncio.run(bench(arguments.parse_args().count)).print()
