"""A native node runs Pippin's entry points with their arguments, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pippin_node.policy import Refusal, Rules, check, exec_command, image_command

RULES = Rules(
    images={"pippin-server": ("python", "-m", "pippin_server")},
    version="1.2.0",
    allow_host_path=(Path("/srv/models"),),
)


def a_pod(container: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    base = {"name": "server", "image": "pippin-server:1.2.0-mlx", "args": ["serve"]}
    return {
        "metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": {"containers": [{**base, **(container or {})}], **spec},
    }


def refused(pod: dict[str, Any]) -> str:
    refusal = check(pod, RULES)
    assert refusal is not None
    return refusal.reason


@pytest.mark.parametrize(
    "image",
    ["pippin-server:1.2.0", "pippin-server:1.2.0-mlx", "reg.example:5000/a/b/pippin-server:1.2.0"],
)
def test_an_image_is_its_last_name_and_a_tag_of_the_agents_version(image: str) -> None:
    assert image_command(image, RULES) == ("python", "-m", "pippin_server")


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("nginx:1.2.0", "ImageNotAllowed"),
        ("pippin-server-evil:1.2.0", "ImageNotAllowed"),
        ("pippin-server", "ImageVersionMismatch"),
        ("pippin-server:1.2.01", "ImageVersionMismatch"),
        ("pippin-server:1.3.0", "ImageVersionMismatch"),
        ("pippin-server@sha256:" + "0" * 64, "InvalidImageName"),
    ],
)
def test_any_other_image_is_refused_by_name(image: str, reason: str) -> None:
    refusal = image_command(image, RULES)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == reason
    assert image in refusal.message


def test_a_plain_server_pod_as_the_operator_renders_it_is_let_through() -> None:
    pod = a_pod(
        {
            "ports": [{"name": "http", "containerPort": 8000}],
            "env": [{"name": "LOG", "value": "debug"}],
            "securityContext": {"runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}},
            "startupProbe": {"httpGet": {"path": "/ready", "port": "http"}},
            "lifecycle": {"preStop": {"exec": {"command": ["pippin-server", "drain"]}}},
            "volumeMounts": [
                {"name": "config", "mountPath": "/etc/pippin/server"},
                {"name": "w", "mountPath": "/models/m"},
            ],
        },
        volumes=[
            {"name": "config", "configMap": {"name": "c"}},
            {"name": "w", "hostPath": {"path": "/srv/models/m", "type": "Directory"}},
        ],
    )
    assert check(pod, RULES) is None


@pytest.mark.parametrize(
    "container",
    [
        {"command": ["sh"]},
        {"tty": True},
        {"securityContext": {"privileged": True}},
        {"securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}},
        {"ports": [{"containerPort": 80}]},
        {"ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}]},
        {"lifecycle": {"postStart": {"exec": {"command": ["pippin-server"]}}}},
        {"lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "rm"]}}}},
        {"livenessProbe": {"exec": {"command": ["cat"]}}},
        {"livenessProbe": {"grpc": {"port": 1}}},
        {"readinessProbe": {"httpGet": {"port": 22}}},
        {"readinessProbe": {"tcpSocket": {"port": "ssh"}}},
        {"env": [{"name": "PYTHONPATH", "value": "/x"}]},
        {"env": [{"name": "DYLD_INSERT_LIBRARIES", "value": "/x"}]},
        {"env": [{"name": "PIPPIN_ROOT", "value": "/"}]},
        {"env": [{"name": "A", "valueFrom": {"fileKeyRef": {}}}]},
        {"volumeMounts": [{"name": "v", "mountPath": "/a/../../etc"}]},
        {"volumeMounts": [{"name": "v", "mountPath": "/a", "subPath": "../x"}]},
        {"volumeMounts": [{"name": "v", "mountPath": "/"}]},
        {"volumeMounts": [{"name": "v", "mountPath": "/a", "subPathExpr": "$(A)"}]},
    ],
)
def test_a_container_that_asks_for_more_is_refused(container: dict[str, Any]) -> None:
    assert refused(a_pod(container))


@pytest.mark.parametrize(
    "spec",
    [
        {"hostNetwork": True},
        {"hostPID": True},
        {"hostIPC": True},
        {"initContainers": [{"name": "i", "image": "busybox"}]},
        {"runtimeClassName": "gvisor"},
        {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]},
        {"volumes": [{"name": "v", "hostPath": {"path": "/srv/models/../../etc"}}]},
        {"volumes": [{"name": "v", "hostPath": {"path": "/srv/modelsx"}}]},
        {"volumes": [{"name": "v", "hostPath": {"path": "/srv/models/s", "type": "Socket"}}]},
        {"volumes": [{"name": "v", "projected": {"sources": [{"clusterTrustBundle": {}}]}}]},
    ],
)
def test_a_pod_that_asks_for_more_is_refused(spec: dict[str, Any]) -> None:
    assert refused(a_pod(**spec))


def test_two_volumes_cannot_be_at_one_path_in_a_pod() -> None:
    pod = a_pod({"volumeMounts": [{"name": "a", "mountPath": "/x"}]})
    other = {**pod["spec"]["containers"][0], "name": "other"}
    pod["spec"]["containers"].append({**other, "volumeMounts": [{"name": "b", "mountPath": "/x/"}]})
    assert refused(pod) == "VolumeNotSupported"


def test_a_mount_may_lie_inside_an_empty_dir_only() -> None:
    mounts = [{"name": "out", "mountPath": "/a"}, {"name": "c", "mountPath": "/a/b/c"}]
    config = {"name": "c", "configMap": {"name": "c"}}
    inside = a_pod({"volumeMounts": mounts}, volumes=[{"name": "out", "emptyDir": {}}, config])
    assert check(inside, RULES) is None
    other = {"name": "out", "secret": {"secretName": "s"}}
    assert refused(a_pod({"volumeMounts": mounts}, volumes=[other, config]))


def test_hooks_run_entry_points_by_their_names() -> None:
    assert exec_command(["pippin-server", "drain"], RULES.images) == (
        *("python", "-m", "pippin_server"),
        "drain",
    )
    assert exec_command(["/usr/bin/pippin-server"], RULES.images) is None
    assert exec_command([], RULES.images) is None
