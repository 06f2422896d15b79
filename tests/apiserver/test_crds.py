"""The CRDs as a real API server takes them: structural, defaulted, explained, scaled."""

import re

import pytest

from support.manifests import key, model
from support.operator_process import CRDS, Cluster


@pytest.mark.parametrize("name", ["modeldeployments.pippin.dev", "apikeys.pippin.dev"])
def test_the_api_server_finds_the_schema_structural(cluster: Cluster, name: str):
    crd = cluster.plane.api.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")
    conditions = {entry["type"]: entry["status"] for entry in crd["status"]["conditions"]}
    assert conditions["Established"] == "True"
    assert conditions["NamesAccepted"] == "True"
    assert conditions.get("NonStructuralSchema", "False") == "False"


def test_what_is_left_out_gets_its_default(cluster: Cluster, namespace: str):
    spec = cluster.create("modeldeployments", model("tiny", namespace))["spec"]
    assert spec["model"]["task"] == "chat"
    assert spec["accelerator"] == {"type": "cpu", "count": 1}
    assert spec["probes"] == {"startupTimeout": "30m", "livenessStall": "60s"}
    assert spec["drain"] == {"timeout": "60s"}
    assert spec["suspend"] is False
    assert "replicas" not in spec
    made = cluster.create("apikeys", key("app", namespace))["spec"]
    assert made["enabled"] is True
    assert (made["egress"], made["priority"]) == ("Allow", "interactive")


def test_explain_tells_what_to_write(cluster: Cluster):
    text = cluster.plane.kubectl("explain", "mdep.spec.model.uri")
    assert "hf://" in text and "pvc://" in text
    assert "means none" in cluster.plane.kubectl("explain", "ak.spec.models")


def test_get_shows_the_columns(cluster: Cluster, namespace: str):
    cluster.create("modeldeployments", model("tiny", namespace))
    cluster.create("apikeys", key("app", namespace))

    def columns(kind: str, *args: str) -> list[str]:
        header = cluster.plane.kubectl("get", kind, "-n", namespace, *args).splitlines()[0]
        return re.split(r"\s{2,}", header.strip())

    model_columns = ["NAME", "READY", "REASON", "ENGINE", "ACCELERATOR", "REPLICAS", "URL", "AGE"]
    assert columns("mdep") == model_columns
    assert columns("mdep", "-owide") == [*model_columns, "MODEL", "NODES", "SERVED-NAME"]
    key_columns = ["NAME", "PHASE", "KEY-ID", "MODELS", "RPM", "TPM", "LAST-USED", "EXPIRES", "AGE"]
    wide = ["OWNER", "REQUESTS", "TOKENS-TODAY", "PRIORITY"]
    assert columns("ak") == key_columns
    assert columns("ak", "-owide") == [*key_columns, *wide]
    both = cluster.plane.kubectl("get", "pippin", "-n", namespace)
    assert "modeldeployment.pippin.dev/tiny" in both and "apikey.pippin.dev/app" in both


def test_scale_writes_replicas_though_none_was_set(cluster: Cluster, namespace: str):
    cluster.create("modeldeployments", model("tiny", namespace))
    cluster.plane.kubectl("scale", "mdep/tiny", "-n", namespace, "--replicas=3")
    assert cluster.get("modeldeployments", namespace, "tiny")["spec"]["replicas"] == 3


def test_a_status_write_leaves_the_generation(cluster: Cluster, namespace: str):
    cluster.create("modeldeployments", model("tiny", namespace))
    cluster.set_status("modeldeployments", namespace, "tiny", {"phase": "Ready"})
    live = cluster.get("modeldeployments", namespace, "tiny")
    assert live["status"]["phase"] == "Ready"
    assert live["metadata"]["generation"] == 1


@pytest.mark.parametrize("path", sorted((CRDS / "samples").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_api_server_takes_the_sample(cluster: Cluster, namespace: str, path):
    said = cluster.plane.kubectl(
        *("apply", "-n", namespace, "--dry-run=server", "--validate=strict", "-f", str(path))
    )
    assert "created (server dry run)" in said
