"""The Node object: what it says (pure), and keeping it said."""

from __future__ import annotations

import asyncio
import copy
from datetime import datetime
from pathlib import Path

import structlog

from pippin_contract import __version__

from . import hardware
from .client import STRATEGIC, ApiError, Unreachable
from .context import Context, rfc3339
from .hardware import Machine
from .records import Json
from .settings import Settings

log = structlog.get_logger(__name__)

#: Less free memory or disk than this is pressure, bytes (the kubelet evicts at 100Mi).
MEMORY_FLOOR = 100 * 1024 * 1024
DISK_FLOOR = 1024 * 1024 * 1024

OS_TAINT = {"key": "kubernetes.io/os", "value": "darwin", "effect": "NoSchedule"}


def labels(name: str, machine: Machine, extra: dict[str, str]) -> dict[str, str]:
    own = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": machine.os,
        "kubernetes.io/arch": machine.arch,
        "pippin.dev/native": "true",
        "pippin.dev/memory": f"{machine.memory // 2**30}Gi",
    }
    if machine.chip:
        own["pippin.dev/chip"] = machine.chip
    return {**own, **extra}


def node_object(name: str, machine: Machine, settings: Settings) -> Json:
    """What is created when the machine joins; later runs bring labels up to date."""
    spec: Json = {"taints": [OS_TAINT]} if machine.os == "darwin" else {}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels(name, machine, settings.labels)},
        "spec": spec,
    }


def resources(machine: Machine, disk_total: int, max_pods: int) -> tuple[Json, Json]:
    """Capacity and allocatable."""
    capacity = {
        "cpu": str(machine.cpus),
        "memory": f"{machine.memory // 1024}Ki",
        "ephemeral-storage": f"{disk_total // 1024}Ki",
        "pods": str(max_pods),
    }
    return capacity, {**capacity, "memory": f"{machine.pod_memory // 1024}Ki"}


#: Condition -> reason and message when it is False, then when it is True; the kubelet's words.
WORDS = {
    "MemoryPressure": (
        ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
    ),
    "DiskPressure": (
        ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("KubeletHasDiskPressure", "kubelet has disk pressure"),
    ),
    "PIDPressure": (
        ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
    ),
    "Ready": (
        ("KubeletNotReady", "pippin-node is not ready"),
        ("KubeletReady", "pippin-node is posting ready status"),
    ),
}


def conditions(memory_free: int | None, disk_free: int) -> list[Json]:
    """The Node's conditions without times."""
    states = {
        "MemoryPressure": memory_free is not None and memory_free < MEMORY_FLOOR,
        "DiskPressure": disk_free < DISK_FLOOR,
        "PIDPressure": False,
        "Ready": True,
    }
    return [
        {
            "type": kind,
            "status": str(state),
            "reason": WORDS[kind][state][0],
            "message": WORDS[kind][state][1],
        }
        for kind, state in states.items()
    ]


def with_times(current: list[Json], known: list[Json], now: str) -> list[Json]:
    """Heartbeat now; transition time kept where the status did not change."""
    before = {condition["type"]: condition for condition in known}
    done = []
    for condition in current:
        old = before.get(condition["type"], {})
        same = old.get("status") == condition["status"]
        since = old.get("lastTransitionTime", now) if same else now
        done.append({**condition, "lastHeartbeatTime": now, "lastTransitionTime": since})
    return done


def says_the_same(current: list[Json], told: list[Json]) -> bool:
    """Whether the API server has these conditions, their times aside."""
    known = {condition["type"]: condition for condition in told}
    return all(
        known.get(condition["type"], {}).get(name) == value
        for condition in current
        for name, value in condition.items()
    )


class NodeKeeper:
    """Registers the Node and posts its status: at once when it differs, else now and then."""

    def __init__(
        self,
        context: Context,
        machine: Machine,
        port: int,
    ) -> None:
        self.client = context.client
        self.settings = context.settings
        self.name = context.node
        self.now = context.now
        self.machine = machine
        self.port = port
        self._posted: Json | None = None
        self._posted_at: datetime | None = None

    @property
    def path(self) -> str:
        return f"/api/v1/nodes/{self.name}"

    async def register(self) -> str:
        """Create the Node or bring its labels up to date; its uid. Raises ApiError, Unreachable."""
        wanted = node_object(self.name, self.machine, self.settings)
        try:
            node = await self.client.create("/api/v1/nodes", wanted)
        except ApiError as error:
            if error.status != 409:
                raise
            body = {"metadata": {"labels": wanted["metadata"]["labels"]}}
            node = await self.client.patch(self.path, body)
        return str(node["metadata"]["uid"])

    def status(self, root: Path) -> Json:
        """The whole status but conditions' times."""
        disk_total, disk_free = hardware.disk(root)
        capacity, allocatable = resources(self.machine, disk_total, self.settings.max_pods)
        return {
            "capacity": capacity,
            "allocatable": allocatable,
            "addresses": [
                {"type": "InternalIP", "address": self.settings.host_address},
                {"type": "Hostname", "address": self.name},
            ],
            "conditions": conditions(hardware.available_memory(), disk_free),
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.port}},
            "nodeInfo": self._info(),
        }

    def _info(self) -> Json:
        return {
            "architecture": self.machine.arch,
            "operatingSystem": self.machine.os,
            "osImage": self.machine.os_image,
            "kernelVersion": self.machine.kernel,
            "machineID": self.machine.machine_id,
            "systemUUID": self.machine.machine_id,
            "bootID": self.machine.boot_id,
            "containerRuntimeVersion": f"pippin://{__version__}",
            "kubeletVersion": f"v{__version__}-pippin",
            "kubeProxyVersion": "",
        }

    async def post(self) -> None:
        """Write the status if it is not what the API server has, or is old."""
        status = self.status(self.settings.root)
        now = self.now()
        # Any version will do: a Node that was not heard of for a while is marked so by others.
        node = await self.client.get(self.path, {"resourceVersion": "0"})
        fresh = self._posted_at is not None and (
            (now - self._posted_at).total_seconds() < self.settings.node_status_seconds
        )
        told = node.get("status", {}).get("conditions", [])
        if fresh and status == self._posted and says_the_same(status["conditions"], told):
            return
        self._posted = copy.deepcopy(status)
        status["conditions"] = with_times(status["conditions"], told, rfc3339(now))
        await self.client.patch(f"{self.path}/status", {"status": status}, STRATEGIC)
        self._posted_at = now

    async def run(self) -> None:
        """For ever; the API server may come and go."""
        while True:
            pause = self.settings.node_check_seconds
            try:
                await self.post()
            except (ApiError, Unreachable) as error:
                log.warning("node.status_failed", error=str(error))
                pause = min(pause, self.settings.retry_seconds)
            await asyncio.sleep(pause)
