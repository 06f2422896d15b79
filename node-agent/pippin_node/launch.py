"""How a container of a Pod becomes a command line and an environment of this machine. No process.

Names in manifests stay as they are in a container; what differs natively is told by `PIPPIN_*`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pippin_contract import native

from . import env, policy
from .context import Context
from .records import Json, PodDir, write_json

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


def command_line(container: Json, rules: policy.Rules, values: Mapping[str, str]) -> list[str]:
    """The entry point and the container's args. Raises ConfigError for a refused image."""
    entry = policy.image_command(container["image"], rules)
    if isinstance(entry, policy.Refusal):
        raise env.ConfigError(entry.message)
    return [*entry, *(env.expand(arg, values) for arg in container.get("args", []))]


def native_env(
    container: Json, pod_dir: PodDir, ports: Mapping[str, int], host: str
) -> dict[str, str]:
    """What tells the program where its files and ports are."""
    values = {
        native.ROOT: str(pod_dir.root),
        native.BIND_HOST: host,
        "HOME": str(pod_dir.root / "home"),
        "TMPDIR": str(pod_dir.root / "tmp"),
    }
    values |= {native.port_variable(name): str(port) for name, port in ports.items()}
    return values


def limit_env(container: Json) -> dict[str, str]:
    """What a container would be held to. The Pod's own variables go before it."""
    limit = container.get("resources", {}).get("limits", {}).get("memory")
    return {native.MEMORY_LIMIT: limit} if limit else {}


def cluster_env(container: Json, pod: Json, pod_dir: PodDir, context: Context) -> dict[str, str]:
    """The API server's real address, and a kubeconfig where a token is mounted."""
    host, port = context.client.host_and_port
    values = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": str(port)}
    paths = {mount["mountPath"].rstrip("/") for mount in container.get("volumeMounts", [])}
    if SERVICE_ACCOUNT in paths:
        path = pod_dir.path / "kubeconfig"
        write_json(path, pod_kubeconfig(context.client.server, pod, pod_dir))
        values["KUBECONFIG"] = str(path)
    return values


def pod_kubeconfig(server: str, pod: Json, pod_dir: PodDir) -> Json:
    """Refers to the mounted token and CA by file, so that rotation reaches the program."""
    files = pod_dir.root / SERVICE_ACCOUNT.lstrip("/")
    namespace = pod["metadata"]["namespace"]
    context = {"cluster": "cluster", "user": "pod", "namespace": namespace}
    cluster = {"server": server, "certificate-authority": str(files / "ca.crt")}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "users": [{"name": "pod", "user": {"tokenFile": str(files / "token")}}],
        "contexts": [{"name": "pod", "context": context}],
        "current-context": "pod",
    }


def working_directory(container: Json, pod_dir: PodDir) -> Path:
    """The container's workingDir inside the Pod's root; made when it is missing."""
    inside: str = container.get("workingDir", "/")
    path = pod_dir.root / inside.lstrip("/")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
