"""A running Pippin as the end-to-end tests see it: kubectl, the gateway's address, a tenant."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import openai

from pippin_contract import native, wire
from support.eventually import eventually
from support.kubectl import Kubectl, KubectlFailed

#: Seconds within which an echo model becomes Ready on a busy machine with two cores.
READY_WITHIN = 90


class ApiServer(Protocol):
    """The part of an embedded control plane that tests take away and give back."""

    def stop_apiserver(self) -> None: ...

    def start_apiserver(self) -> None: ...


@dataclass(frozen=True)
class Cluster:
    """Where Pippin runs. The embedded parts are there only when the tests made the cluster."""

    kubectl: Kubectl
    gateway_url: str
    weights_uri: str
    system_namespace: str = "pippin-system"
    node_root: Path | None = None
    control_plane: ApiServer | None = None

    def stop_apiserver(self) -> None:
        assert self.control_plane is not None
        self.control_plane.stop_apiserver()

    def start_apiserver(self) -> None:
        assert self.control_plane is not None
        self.control_plane.start_apiserver()

    def pids_of(self, pod: Mapping[str, Any]) -> list[int]:
        """The Pod's processes, where the node's processes are this machine's, the first first.

        A native Pod's carry the root that the agent passed on, a container's are in its cgroup.
        """
        uid = str(pod["metadata"]["uid"])
        root = f"{native.ROOT}=".encode()
        names = (uid.encode(), uid.replace("-", "_").encode())
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                environ = (process / "environ").read_bytes().split(b"\0")
                inside = any(item.startswith(root) and names[0] in item for item in environ)
                cgroup = (process / "cgroup").read_bytes()
                if inside or any(name in cgroup for name in names):
                    found.append(process)
        programs = [one for one in found if (one / "comm").read_text().strip() != "pause"]
        return sorted(int(one.name) for one in programs)

    def files_of(self, pod: Mapping[str, Any]) -> list[Path]:
        """What a native node keeps of the Pod on this machine."""
        if self.node_root is None:
            return []
        directory = self.node_root / "pods" / str(pod["metadata"]["uid"])
        return [directory] if directory.exists() else []


async def accepted(client: openai.AsyncOpenAI) -> bool:
    """Whether the gateway takes the client's key now."""
    try:
        await client.models.list()
    except openai.AuthenticationError:
        return False
    return True


@dataclass
class Tenant:
    """A namespace of its own in the cluster, and the clients made for it."""

    cluster: Cluster
    namespace: str
    clients: list[openai.AsyncOpenAI] = field(default_factory=list)

    @property
    def kubectl(self) -> Kubectl:
        return self.cluster.kubectl.within(self.namespace)

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        self.kubectl.apply(*manifests)

    def wait_ready(self, *names: str, within: int = READY_WITHIN) -> None:
        targets = [f"mdep/{name}" for name in names]
        limit = f"--timeout={within}s"
        self.kubectl("wait", *targets, "--for=condition=Ready", limit, timeout=within + 10)

    def server_pods(self, name: str) -> list[dict[str, Any]]:
        """Pods of one ModelDeployment that are not on their way out."""
        selector = f"{wire.LABEL_INSTANCE}={name},{wire.LABEL_NAME}={wire.SERVER_APP}"
        pods = self.kubectl.items("pods", "-l", selector)
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    async def status(
        self, name: str, until: Callable[[Mapping[str, Any]], object]
    ) -> Mapping[str, Any]:
        """The ModelDeployment's status once it is as wanted."""

        def read() -> dict[str, Any]:
            return dict(self.kubectl.json("get", "mdep", name).get("status", {}))

        return await eventually(read, until=until, within=READY_WITHIN)

    async def condition(
        self, kind: str, name: str, condition: str, status: str, *, says: str = ""
    ) -> dict[str, Any]:
        """The condition once it has that status and its message holds those words."""
        return await eventually(
            lambda: self.kubectl.condition(kind, name, condition),
            until=lambda c: c.get("status") == status and says in c.get("message", ""),
            within=READY_WITHIN,
        )

    async def settled(self, look: Callable[[], dict[str, str]]) -> dict[str, str]:
        """What `look` sees once three looks in a row have seen the same."""
        history: list[dict[str, str]] = []

        def same() -> bool:
            history.append(look())
            return len(history) >= 3 and history[-3] == history[-1] == history[-2]

        await eventually(same, within=30)
        return history[-1]

    async def client(self, apikey: str) -> openai.AsyncOpenAI:
        """The official client with that key, once the gateway knows the key."""
        client = openai.AsyncOpenAI(
            api_key=await eventually(lambda: self.secret(apikey), retry=(KubectlFailed,)),
            base_url=f"{self.cluster.gateway_url}/v1",
            max_retries=0,
            timeout=60,
        )
        self.clients.append(client)

        await eventually(lambda: accepted(client))
        return client

    def secret(self, apikey: str) -> str:
        """The key's plaintext, as its owner reads it."""
        data = self.kubectl.json("get", "secret", f"{apikey}-apikey")["data"]
        return base64.b64decode(data[wire.SECRET_API_KEY]).decode()
