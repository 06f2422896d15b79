"""The placement table, row by row."""

from typing import Any

import pytest

from pippin_operator.render.children import render
from support.models import CONTEXT, a_model


def deployment(**spec: Any) -> dict[str, Any]:
    (found,) = [m for m in render(a_model(**spec), CONTEXT) if m["kind"] == "Deployment"]
    return dict(found["spec"])


def pod(**spec: Any) -> dict[str, Any]:
    return dict(deployment(**spec)["template"]["spec"])


def resources(**spec: Any) -> dict[str, Any]:
    return dict(pod(**spec)["containers"][0].get("resources", {}))


def test_nvidia():
    spec = {"accelerator": {"type": "nvidia", "count": 2, "product": "NVIDIA-L4"}}
    assert pod(**spec)["nodeSelector"] == {
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.product": "NVIDIA-L4",
    }
    assert pod(**spec)["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]
    assert resources(**spec)["limits"] == {"nvidia.com/gpu": "2"}
    assert deployment(**spec)["strategy"] == {"type": "Recreate"}


def test_amd():
    spec = {"accelerator": {"type": "amd", "count": 8, "product": "MI300X"}}
    assert pod(**spec)["nodeSelector"] == {"amd.com/gpu.product-name": "MI300X"}
    assert resources(**spec)["limits"] == {"amd.com/gpu": "8"}
    assert deployment(**spec)["strategy"] == {"type": "Recreate"}


def test_apple():
    spec = {"accelerator": {"type": "apple", "product": "m3-max", "memory": "24Gi"}}
    assert pod(**spec)["nodeSelector"] == {
        "kubernetes.io/os": "darwin",
        "kubernetes.io/arch": "arm64",
        "pippin.dev/chip": "m3-max",
    }
    assert pod(**spec)["tolerations"] == [
        {
            "key": "kubernetes.io/os",
            "operator": "Equal",
            "value": "darwin",
            "effect": "NoSchedule",
        }
    ]
    assert resources(**spec) == {"requests": {"memory": "24Gi"}}
    assert deployment(**spec)["strategy"] == {"type": "Recreate"}


def test_cpu_rolls_with_the_new_before_the_old():
    spec = deployment(accelerator={"type": "cpu"})
    assert pod()["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert "tolerations" not in pod()
    assert resources() == {}
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_a_resource_by_another_name():
    spec = {"accelerator": {"type": "nvidia", "resourceName": "nvidia.com/mig-1g.5gb"}}
    assert resources(**spec)["limits"] == {"nvidia.com/mig-1g.5gb": "1"}


@pytest.mark.parametrize("accelerator", ["cpu", "apple", "nvidia", "amd"])
def test_the_users_own_wishes_come_on_top(accelerator):
    spec = {
        "accelerator": {"type": accelerator},
        "nodeSelector": {"zone": "a"},
        "tolerations": [{"key": "mine", "operator": "Exists"}],
        "resources": {"requests": {"cpu": 2}, "limits": {"memory": "1Gi"}},
    }
    assert pod(**spec)["nodeSelector"]["zone"] == "a"
    assert pod(**spec)["tolerations"][-1] == {"key": "mine", "operator": "Exists"}
    assert resources(**spec)["requests"]["cpu"] == "2"
    assert resources(**spec)["limits"]["memory"] == "1Gi"
