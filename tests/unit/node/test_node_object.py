"""What a Node says of its machine."""

from __future__ import annotations

from pippin_node import node
from pippin_node.hardware import Machine
from pippin_node.settings import Settings

MAC = Machine(
    os="darwin",
    arch="arm64",
    cpus=12,
    memory=64 * 2**30,
    pod_memory=48 * 2**30,
    chip="m3-max",
    kernel="24.0.0",
    os_image="macOS 15.0",
    machine_id="m",
    boot_id="b",
)


def test_a_mac_has_labels_for_placement_and_the_taint() -> None:
    made = node.node_object("mini", MAC, Settings(labels={"rack": "7"}))
    assert made["metadata"]["labels"] == {
        "kubernetes.io/hostname": "mini",
        "kubernetes.io/os": "darwin",
        "kubernetes.io/arch": "arm64",
        "pippin.dev/native": "true",
        "pippin.dev/memory": "64Gi",
        "pippin.dev/chip": "m3-max",
        "rack": "7",
    }
    assert made["spec"]["taints"] == [
        {"key": "kubernetes.io/os", "value": "darwin", "effect": "NoSchedule"}
    ]


def test_pods_may_ask_for_the_memory_budget_only() -> None:
    capacity, allocatable = node.resources(MAC, 2**40, 110)
    assert capacity["memory"] == f"{64 * 2**20}Ki"
    assert allocatable["memory"] == f"{48 * 2**20}Ki"
    assert capacity["cpu"] == allocatable["cpu"] == "12"


def test_pressure_is_told_in_the_kubelets_words() -> None:
    fine = {one["type"]: one for one in node.conditions(2**30, 2**40)}
    assert fine["MemoryPressure"]["reason"] == "KubeletHasSufficientMemory"
    assert fine["DiskPressure"]["reason"] == "KubeletHasNoDiskPressure"
    assert fine["Ready"]["status"] == "True"
    short = {one["type"]: one for one in node.conditions(2**20, 2**20)}
    assert short["MemoryPressure"]["status"] == "True"
    assert short["DiskPressure"]["reason"] == "KubeletHasDiskPressure"
    unknown = {one["type"]: one for one in node.conditions(None, 2**40)}
    assert unknown["MemoryPressure"]["status"] == "False"


def test_the_time_of_a_condition_is_kept_while_it_stays() -> None:
    known = node.with_times(node.conditions(2**30, 2**40), [], "t1")
    later = {one["type"]: one for one in node.with_times(node.conditions(1, 2**40), known, "t2")}
    assert later["Ready"]["lastTransitionTime"] == "t1"
    assert later["Ready"]["lastHeartbeatTime"] == "t2"
    assert later["MemoryPressure"]["lastTransitionTime"] == "t2"
