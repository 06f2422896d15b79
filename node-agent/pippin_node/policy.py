"""What a native node runs, and what it refuses. Pure.

Anyone who may create Pods must not thereby own the machine: an image is a name and a version,
looked up in a table of Pippin's own entry points, and nothing of a Pod that asks for more than
that entry point's arguments, environment and files is let through. What cannot be honoured is
refused by name, never ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .env import reserved
from .records import Json

Images = Mapping[str, Sequence[str]]

VOLUME_KINDS = ("emptyDir", "configMap", "secret", "projected", "downwardAPI", "hostPath")
PROJECTED_KINDS = ("serviceAccountToken", "configMap", "secret", "downwardAPI")
ENV_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef")

#: Fields of the Pod and of a container that may not be set, and what to say then.
POD_FIELDS = {
    "hostNetwork": "host namespaces",
    "hostPID": "host namespaces",
    "hostIPC": "host namespaces",
    "shareProcessNamespace": "a shared process namespace",
    "initContainers": "init containers",
    "hostAliases": "host aliases",
    "runtimeClassName": "runtime classes",
    "resourceClaims": "resource claims",
}
CONTAINER_FIELDS = {
    "command": "a command of its own: only args",
    "stdin": "stdin",
    "tty": "a terminal",
    "volumeDevices": "block devices",
}


@dataclass(frozen=True)
class Refusal:
    """Why a Pod is not run here: a reason for status and event, and words that name the fix."""

    reason: str
    message: str


@dataclass(frozen=True)
class Rules:
    """What this node allows."""

    images: Images
    version: str
    allow_host_path: tuple[Path, ...] = ()


def check(pod: Json, rules: Rules) -> Refusal | None:
    """The first thing that keeps the Pod from running here."""
    return next(_refusals(pod, rules), None)


def image_command(image: str, rules: Rules) -> tuple[str, ...] | Refusal:
    """The command line for an image name, whatever registry prefix stands before it."""
    if "@" in image:
        return Refusal(
            "InvalidImageName",
            f"image {image!r} names a digest, which a native node cannot check: use a tag",
        )
    name, _, tag = image.rpartition("/")[2].partition(":")
    command = rules.images.get(name)
    if command is None:
        known = ", ".join(sorted(rules.images))
        return Refusal("ImageNotAllowed", f"image {image!r}: a native node runs only {known}")
    if tag != rules.version and not tag.startswith(f"{rules.version}-"):
        return Refusal(
            "ImageVersionMismatch",
            f"image {image!r}: this node runs version {rules.version}; upgrade pippin-node or"
            f" deploy {name}:{rules.version}",
        )
    return tuple(command)


def exec_command(command: Sequence[str], images: Images) -> tuple[str, ...] | None:
    """The real command line of an exec hook or probe; None when it is no entry point of ours."""
    if not command or command[0] not in images:
        return None
    return (*images[command[0]], *command[1:])


def _refusals(pod: Json, rules: Rules) -> Iterator[Refusal]:
    spec = pod["spec"]
    for field, words in POD_FIELDS.items():
        if spec.get(field):
            yield Refusal("PodNotSupported", f"spec.{field}: a native node has no {words}")
    if spec.get("os", {}).get("name") == "windows":
        yield Refusal("PodOSNotSupported", "spec.os.name: this node does not run windows")
    for volume in spec.get("volumes", []):
        yield from _volume(volume, rules)
    for container in spec["containers"]:
        yield from _container(container, rules)
    yield from _mounts(spec)


def _container(container: Json, rules: Rules) -> Iterator[Refusal]:
    at = f"container {container['name']!r}"
    command = image_command(container["image"], rules)
    if isinstance(command, Refusal):
        yield command
    for field, words in CONTAINER_FIELDS.items():
        if container.get(field):
            yield Refusal("ContainerNotSupported", f"{at}: a native node does not allow {words}")
    security = container.get("securityContext", {})
    if security.get("privileged") or security.get("capabilities", {}).get("add"):
        yield Refusal(
            "PrivilegeNotAllowed",
            f"{at}: privileged and added capabilities are not allowed on a native node",
        )
    yield from _ports(at, container)
    yield from _hooks(at, container, rules)
    yield from _environment(at, container)


def _ports(at: str, container: Json) -> Iterator[Refusal]:
    for port in container.get("ports", []):
        if port.get("protocol", "TCP") != "TCP":
            yield Refusal("PortNotSupported", f"{at}: port {port['containerPort']}: only TCP")
        if not port.get("name"):
            yield Refusal(
                "PortNotSupported",
                f"{at}: port {port['containerPort']} needs a name: a native process is told its"
                " port by name",
            )


def _hooks(at: str, container: Json, rules: Rules) -> Iterator[Refusal]:
    lifecycle = container.get("lifecycle", {})
    if lifecycle.get("postStart"):
        yield Refusal("HookNotSupported", f"{at}: postStart hooks are not supported natively")
    actions = {"preStop": lifecycle.get("preStop")}
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        actions[kind] = container.get(kind)
    names = {port.get("name") for port in container.get("ports", [])}
    numbers = {port["containerPort"] for port in container.get("ports", [])}
    for kind, action in actions.items():
        if action:
            yield from _action(f"{at}: {kind}", action, rules.images, names | numbers)


def _action(at: str, action: Json, images: Images, ports: set[Any]) -> Iterator[Refusal]:
    if "grpc" in action:
        yield Refusal("HookNotSupported", f"{at}: grpc is not supported on a native node")
    if "exec" in action and exec_command(action["exec"].get("command", []), images) is None:
        yield Refusal(
            "CommandNotAllowed",
            f"{at}: a native node executes only {', '.join(sorted(images))}",
        )
    for kind in ("httpGet", "tcpSocket"):
        target = action.get(kind)
        if target is None:
            continue
        if target.get("host"):
            yield Refusal("HookNotSupported", f"{at}: {kind}.host is not supported natively")
        if target["port"] not in ports:
            yield Refusal("HookNotSupported", f"{at}: {target['port']!r} is no port of this one")


def _environment(at: str, container: Json) -> Iterator[Refusal]:
    for variable in container.get("env", []):
        if reserved(variable["name"]):
            yield Refusal(
                "EnvNotAllowed", f"{at}: env {variable['name']} may not be set on a native node"
            )
        for source in variable.get("valueFrom", {}):
            if source not in ENV_SOURCES:
                yield Refusal(
                    "EnvNotSupported", f"{at}: env {variable['name']}: {source} is not supported"
                )


def _volume(volume: Json, rules: Rules) -> Iterator[Refusal]:
    name = volume["name"]
    kinds = [kind for kind in volume if kind != "name"]
    for kind in kinds:
        if kind not in VOLUME_KINDS:
            yield Refusal(
                "VolumeNotSupported",
                f"volume {name!r}: {kind} is not supported on a native node; it has"
                f" {', '.join(VOLUME_KINDS)}",
            )
    for source in volume.get("projected", {}).get("sources", []):
        for kind in source:
            if kind not in PROJECTED_KINDS:
                yield Refusal("VolumeNotSupported", f"volume {name!r}: projected {kind}")
    if "hostPath" in volume:
        yield from _host_path(name, volume["hostPath"], rules.allow_host_path)


def _host_path(name: str, source: Json, allowed: tuple[Path, ...]) -> Iterator[Refusal]:
    path, kind = Path(source["path"]), source.get("type", "")
    if kind not in ("", "Directory", "File", "DirectoryOrCreate"):
        yield Refusal("VolumeNotSupported", f"volume {name!r}: hostPath type {kind}")
    if ".." in path.parts or not any(path.is_relative_to(base) for base in allowed):
        yield Refusal(
            "HostPathNotAllowed",
            f"volume {name!r}: {path} is not under a directory that this node allows: start"
            " pippin-node with --allow-host-path",
        )


def _mounts(spec: Json) -> Iterator[Refusal]:
    """All containers of a native Pod see one tree, so one path holds one thing."""
    seen: dict[str, tuple[str, str]] = {}
    empty = {volume["name"] for volume in spec.get("volumes", []) if "emptyDir" in volume}
    for container in spec["containers"]:
        for mount in container.get("volumeMounts", []):
            path = mount["mountPath"].rstrip("/")
            what = (mount["name"], mount.get("subPath", ""))
            if mount.get("subPathExpr"):
                yield Refusal("VolumeNotSupported", f"mount {path!r}: subPathExpr")
            if not path.startswith("/") or ".." in Path(path + "/" + what[1]).parts:
                yield Refusal("VolumeNotSupported", f"mount {path!r}: give a plain absolute path")
            if seen.setdefault(path, what) != what:
                yield Refusal(
                    "VolumeNotSupported",
                    f"mount {path!r}: two volumes at one path in a native Pod",
                )
    for path in seen:
        for parent in Path(path).parents:
            outer = seen.get(str(parent))
            if outer is not None and outer[0] not in empty:
                yield Refusal(
                    "VolumeNotSupported",
                    f"mount {path!r} lies inside the volume at {str(parent)!r}, which is not an"
                    " emptyDir",
                )
