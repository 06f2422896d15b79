"""What the API server says no to, in words that name the field; what the tools explain."""

import pytest

from support.e2e import Cluster, Tenant
from support.kubectl import KubectlFailed
from support.manifests import model


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"engine": {"type": "mlx"}, "model": {"uri": "ftp://x/y"}}, "spec.model.uri"),
        (
            {"autoscaling": {"minReplicas": 5, "maxReplicas": 2}},
            "minReplicas",
        ),
        ({"engine": {"type": "magic"}}, "spec.engine.type"),
        ({"replicas": 2, "autoscaling": {"minReplicas": 1, "maxReplicas": 2}}, "replicas"),
    ],
)
def test_a_wrong_field_is_refused_by_name(tenant: Tenant, spec, field):
    with pytest.raises(KubectlFailed, match=field):
        tenant.apply(model("wrong", tenant.namespace, **spec))


def test_explain_reads_well(cluster: Cluster):
    text = cluster.kubectl("explain", "mdep.spec.model.uri")
    assert "hf://" in text
    assert "pvc://" in text


async def test_a_field_that_does_nothing_yet_is_named(tenant: Tenant):
    tenant.apply(model("early", tenant.namespace, storage={"size": "1Gi"}))
    honored = await tenant.condition("mdep", "early", "SpecHonored", "False")
    assert honored["reason"] == "FieldUnsupported"
    assert "storage" in honored["message"]


async def test_a_model_that_is_not_there_says_so_in_its_condition(cluster: Cluster, tenant: Tenant):
    missing = cluster.weights_uri.rsplit("/", 1)[0] + "/no-such-model"
    tenant.apply(model("lost", tenant.namespace, engine={"type": "mlx"}, model={"uri": missing}))
    ready = await tenant.condition("mdep", "lost", "Ready", "False", says="no-such-model")
    assert ready["reason"] != "Loading"
