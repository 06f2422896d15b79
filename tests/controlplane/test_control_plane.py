"""The control plane that the demo and the tests stand on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from cluster.api import Api, Refused
from cluster.components import API_SERVER, BARE, ETCD
from cluster.controlplane import ControlPlane
from cluster.processes import StartFailed, start_time

from support.apiserver import running_control_plane
from support.eventually import eventually

POD = {
    "metadata": {"name": "p"},
    "spec": {"containers": [{"name": "c", "image": "i"}]},
}


def test_an_object_that_was_created_is_there_after_the_api_server_came_back(
    control_plane: ControlPlane, namespace: str
) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    control_plane.api.create(path, {"metadata": {"name": "kept"}, "data": {"a": "1"}})
    control_plane.stop_apiserver()
    assert not control_plane.running()
    control_plane.start_apiserver()
    assert control_plane.api.get(f"{path}/kept")["data"] == {"a": "1"}


def test_a_killed_etcd_comes_back_with_its_data(
    control_plane: ControlPlane, namespace: str
) -> None:
    control_plane.stop_component(ETCD, kill=True)
    control_plane.start_component(ETCD)
    assert control_plane.api.get(f"/api/v1/namespaces/{namespace}")


def test_two_control_planes_live_side_by_side(
    control_plane: ControlPlane, kubernetes_programs: Path
) -> None:
    with running_control_plane(kubernetes_programs, BARE) as other:
        assert other.url != control_plane.url
        assert other.running() and control_plane.running()
        pids = [record.pid for name in BARE if (record := other.processes.record(name))]
    assert len(pids) == len(BARE)
    assert [start_time(pid) for pid in pids] == [None, None]
    assert not other.state.exists()
    assert control_plane.running()


def test_another_process_may_take_the_control_plane_down(kubernetes_programs: Path) -> None:
    with running_control_plane(kubernetes_programs, BARE) as plane:
        pass
    plane = ControlPlane.create(plane.state, kubernetes_programs)
    plane.start((ETCD,))
    subprocess.run(
        [sys.executable, "-m", "cluster", "down", "--state", str(plane.state)],
        cwd=Path(__file__).parents[2] / "hack",
        check=True,
    )
    assert not plane.state.exists()
    assert plane.processes.names() == []


def test_a_record_whose_pid_went_to_someone_else_ends_nobody(
    tmp_path: Path, kubernetes_programs: Path
) -> None:
    plane = ControlPlane.create(tmp_path / "cluster", kubernetes_programs)
    with subprocess.Popen(["sleep", "60"]) as bystander:
        record = plane.processes.start("gone", ["true"], {})
        os.waitid(os.P_PID, record.pid, os.WEXITED | os.WNOWAIT)
        taken_over = replace(record, pid=bystander.pid, started="long ago")
        (plane.state / "run" / "gone.json").write_text(json.dumps(asdict(taken_over)))
        plane.remove()
        assert bystander.poll() is None
        bystander.kill()


def test_a_failed_start_names_the_component_its_last_words_and_its_log(
    tmp_path: Path, kubernetes_programs: Path
) -> None:
    plane = ControlPlane.create(tmp_path / "cluster", kubernetes_programs)
    (plane.state / "pki" / "etcd.crt").write_text("spoiled")
    with pytest.raises(StartFailed) as failure:
        plane.start((ETCD,))
    plane.remove()
    assert str(failure.value).startswith("etcd ended while starting")
    assert str(plane.processes.log(ETCD)) in str(failure.value)
    assert "PEM" in str(failure.value)


def test_strangers_read_nothing(control_plane: ControlPlane) -> None:
    anonymous = Api(control_plane.url, control_plane.authority)
    with pytest.raises(Refused) as refused:
        anonymous.get("/api/v1/namespaces")
    assert refused.value.status == 403
    assert control_plane.kubeconfig.stat().st_mode & 0o077 == 0
    assert control_plane.state.stat().st_mode & 0o077 == 0


async def test_pods_of_a_restricted_namespace_must_be_restricted(
    full_control_plane: ControlPlane,
) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    api = full_control_plane.api
    api.create("/api/v1/namespaces", {"metadata": {"name": "strict", "labels": labels}})
    account = "/api/v1/namespaces/strict/serviceaccounts/default"
    await eventually(lambda: api.ok(account))
    with pytest.raises(Refused, match="PodSecurity"):
        api.create("/api/v1/namespaces/strict/pods", POD)


def test_a_node_may_not_touch_another_node(control_plane: ControlPlane) -> None:
    config = control_plane.user_kubeconfig("system:node:n1", "system:nodes")
    name = control_plane.url
    node = "apiVersion: v1\nkind: Node\nmetadata: {name: NAME}\n"

    def create(node_name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [control_plane.binaries / "kubectl", "--kubeconfig", config, "create", "-f", "-"],
            input=node.replace("NAME", node_name),
            capture_output=True,
            text=True,
            check=False,
        )

    assert create("n1").returncode == 0, name
    assert "is not allowed to modify node" in create("n2").stderr
    assert control_plane.processes.running(API_SERVER)
