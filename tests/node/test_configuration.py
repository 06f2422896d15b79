"""What a native process is given: environment, arguments, volumes, a token of its own."""

from __future__ import annotations

import json
import ssl
import stat
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from support.eventually import eventually
from support.kubectl import Kubectl
from support.nodeagent import (
    NodeAgent,
    call,
    container,
    event_messages,
    first,
    pod,
    ready,
    waiting,
)


def config_map(name: str, **data: str) -> dict[str, Any]:
    meta = {"name": name}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def secret(name: str, **data: str) -> dict[str, Any]:
    meta = {"name": name}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": data}


def mount(name: str, path: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "mountPath": path, **more}


async def test_environment_and_arguments_come_from_the_manifest_only(kubectl: Kubectl) -> None:
    kubectl.apply(config_map("settings", COLOUR="blue"), secret("keys", token="t-1"))
    env = [
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
        {"name": "GREETING", "value": "hello $(NAME)"},
        {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        {
            "name": "ABSENT",
            "valueFrom": {"configMapKeyRef": {"name": "no", "key": "no", "optional": True}},
        },
    ]
    kubectl.apply(
        pod(
            "toy",
            {
                **container(env=env, envFrom=[{"configMapRef": {"name": "settings"}}]),
                "args": ["serve", "--title", "$(GREETING)", "$$(NAME)"],
                "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}},
            },
        )
    )
    seen = await eventually(lambda: ready(kubectl, "toy"))
    values = json.loads(call(seen, "/env"))
    assert values["GREETING"] == "hello toy"
    assert (values["COLOUR"], values["TOKEN"], values["CPUS"]) == ("blue", "t-1", "2")
    assert "ABSENT" not in values
    assert values["PIPPIN_BIND_HOST"] == "127.0.0.1"
    assert values["PIPPIN_SERVER_MEMORY_LIMIT"] == "64Mi"
    assert json.loads(call(seen, "/args")) == ["serve", "--title", "hello toy", "$(NAME)"]
    assert not {name for name in values if name.startswith(("PIPPIN_NODE_", "PYTEST"))}


async def test_volumes_show_config_maps_secrets_and_the_downward_api(
    kubectl: Kubectl, node_agent: NodeAgent
) -> None:
    kubectl.apply(config_map("settings", **{"a.conf": "one"}), secret("keys", token="t-1"))
    volumes = [
        {"name": "config", "configMap": {"name": "settings"}},
        {"name": "keys", "secret": {"secretName": "keys", "defaultMode": 0o440}},
        {
            "name": "all",
            "projected": {
                "sources": [
                    {"secret": {"name": "keys", "items": [{"key": "token", "path": "s/t"}]}},
                    {
                        "downwardAPI": {
                            "items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]
                        }
                    },
                ]
            },
        },
        {"name": "maybe", "secret": {"secretName": "absent", "optional": True}},
    ]
    mounts = [
        mount("config", "/etc/toy"),
        mount("keys", "/keys"),
        mount("all", "/all"),
        mount("maybe", "/maybe"),
        mount("config", "/one/file.conf", subPath="a.conf"),
    ]
    kubectl.apply(pod("toy", container(volumeMounts=mounts), volumes=volumes))
    seen = await eventually(lambda: ready(kubectl, "toy"))
    assert call(seen, "/file?path=/etc/toy/a.conf") == b"one"
    assert call(seen, "/file?path=/keys/token") == b"t-1"
    assert call(seen, "/file?path=/all/s/t") == b"t-1"
    assert call(seen, "/file?path=/all/name") == b"toy"
    assert call(seen, "/file?path=/one/file.conf") == b"one"
    root = node_agent.pod_dir(seen) / "root"
    assert list((root / "maybe").iterdir()) != [] or (root / "maybe").is_dir()
    assert stat.S_IMODE((root / "keys" / "token").stat().st_mode) == 0o400
    assert stat.S_IMODE((node_agent.root).stat().st_mode) == 0o700


async def test_a_changed_config_map_reaches_the_running_pod(kubectl: Kubectl) -> None:
    kubectl.apply(config_map("settings", colour="blue"))
    volume = {"name": "config", "configMap": {"name": "settings"}}
    kubectl.apply(
        pod("toy", container(volumeMounts=[mount("config", "/etc/toy")]), volumes=[volume])
    )
    seen = await eventually(lambda: ready(kubectl, "toy"))
    kubectl.apply(config_map("settings", colour="green"))
    await eventually(lambda: call(seen, "/file?path=/etc/toy/colour") == b"green")
    assert first(ready(kubectl, "toy"))["restartCount"] == 0


async def test_a_missing_config_map_is_waited_for_and_said(kubectl: Kubectl) -> None:
    volume = {"name": "config", "configMap": {"name": "settings"}}
    kubectl.apply(
        pod("toy", container(volumeMounts=[mount("config", "/etc/toy")]), volumes=[volume])
    )
    await eventually(lambda: event_messages(kubectl, "FailedMount"))
    words = event_messages(kubectl, "FailedMount")[0]
    assert words == 'MountVolume.SetUp failed for volume "config" : configmap "settings" not found'
    await eventually(lambda: waiting(kubectl, "toy").get("reason") == "ContainerCreating")
    kubectl.apply(config_map("settings", colour="blue"))
    seen = await eventually(lambda: ready(kubectl, "toy"))
    assert call(seen, "/file?path=/etc/toy/colour") == b"blue"


async def test_a_missing_key_keeps_the_container_waiting_with_the_reason(kubectl: Kubectl) -> None:
    reference = {"secretKeyRef": {"name": "keys", "key": "token"}}
    kubectl.apply(pod("toy", container(env=[{"name": "TOKEN", "valueFrom": reference}])))
    why = await eventually(
        lambda: waiting(kubectl, "toy"),
        until=lambda w: w.get("reason") == "CreateContainerConfigError",
    )
    assert why["message"] == 'secret "keys" not found'
    kubectl.apply(secret("keys", token="late"))
    seen = await eventually(lambda: ready(kubectl, "toy"))
    assert json.loads(call(seen, "/env"))["TOKEN"] == "late"


async def test_the_kubeconfig_of_a_pod_speaks_for_its_service_account(kubectl: Kubectl) -> None:
    kubectl.apply(pod("toy", automountServiceAccountToken=True))
    seen = await eventually(lambda: ready(kubectl, "toy"))
    values = json.loads(call(seen, "/env"))
    assert who_am_i(Path(values["KUBECONFIG"]), values["KUBERNETES_SERVICE_PORT"]) == (
        f"system:serviceaccount:{kubectl.namespace}:default"
    )


def who_am_i(kubeconfig: Path, port: str) -> str:
    """The user whom the API server sees behind a kubeconfig."""
    config = yaml.safe_load(kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    assert cluster["server"].endswith(f":{port}")
    token = Path(user["tokenFile"]).read_text()
    request = urllib.request.Request(
        f"{cluster['server']}/apis/authentication.k8s.io/v1/selfsubjectreviews",
        data=b'{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}',
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    trust = ssl.create_default_context(cafile=cluster["certificate-authority"])
    with urllib.request.urlopen(request, context=trust, timeout=5) as answer:
        return str(json.load(answer)["status"]["userInfo"]["username"])


async def test_a_host_path_is_shown_where_the_node_allows_it(
    kubectl: Kubectl, shared: Path
) -> None:
    (shared / "weights").mkdir()
    (shared / "weights" / "model.bin").write_text("weights")
    volume = {"name": "w", "hostPath": {"path": f"{shared}/weights", "type": "Directory"}}
    mounts = [mount("w", "/models/toy", readOnly=True)]
    kubectl.apply(pod("toy", container(volumeMounts=mounts), volumes=[volume]))
    seen = await eventually(lambda: ready(kubectl, "toy"))
    assert call(seen, "/file?path=/models/toy/model.bin") == b"weights"
    kubectl("delete", "pod", "toy", "--wait=true", "--timeout=20s")
    assert (shared / "weights" / "model.bin").exists()
