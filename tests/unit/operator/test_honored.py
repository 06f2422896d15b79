"""Every field does something, or is named as one that does not yet."""

import pytest

from pippin_operator.api.honored import engine, unsupported_by_model
from support.models import a_spec

REPORTED = [
    ({"model": {"adapters": [{"name": "a", "uri": "hf://a/b"}]}}, "model.adapters"),
    ({"model": {"uri": "gs://bucket/x"}}, "model.uri"),
    ({"model": {"task": "image"}}, "model.task"),
    ({"model": {"task": "transcription"}, "engine": {"type": "vllm"}}, "model.task"),
    ({"model": {"task": "transcription"}, "accelerator": {"type": "apple"}}, "model.task"),
    ({"accelerator": {"type": "amd"}}, "accelerator.type"),
    ({"engine": {"type": "external", "external": {"url": "https://x"}}}, "engine.external"),
    ({"engine": {"type": "mlx", "echo": {"seed": 1}}}, "engine.echo"),
    ({"autoscaling": {"maxReplicas": 2, "provider": "keda"}}, "autoscaling.provider"),
    ({"autoscaling": {"maxReplicas": 2, "provider": "hpa"}}, "autoscaling.provider"),
    ({"batching": {}}, "batching"),
    ({"batching": {}, "model": {"task": "embedding"}, "engine": {"type": "vllm"}}, "batching"),
    ({"promptCache": {}, "engine": {"type": "echo"}}, "promptCache"),
    ({"promptCache": {}, "model": {"task": "embedding"}}, "promptCache"),
    ({"promptCache": {"maxBytes": "1Gi"}, "engine": {"type": "vllm"}}, "promptCache.maxBytes"),
    ({"storage": {}}, "storage"),
    ({"auth": {"required": False}}, "auth.required"),
]
HONORED = [
    {"fallbacks": ["x"]},
    {"engine": {"type": "vllm"}},
    {"model": {"uri": "s3://bucket/x"}},
    {"model": {"uri": "oci://registry/x"}},
    {"model": {"uri": "https://host/x.tar"}},
    {"engine": {"type": "vllm"}, "model": {"task": "embedding"}},
    {"batching": {"window": "5ms"}, "model": {"task": "embedding"}},
    {"batching": {}, "model": {"task": "embedding"}, "engine": {"type": "echo"}},
    {"model": {"task": "image"}, "engine": {"type": "echo"}},
    {"model": {"task": "transcription"}, "engine": {"type": "echo"}},
    {"accelerator": {"type": "nvidia"}},
    {"accelerator": {"type": "amd"}, "engine": {"image": "mine:1"}},
    {"engine": {"type": "echo", "echo": {"seed": 1}}},
    {"limits": {"rpm": 1, "tpm": 1, "concurrency": 1, "queue": 1}},
    {"timeouts": {"connect": "1s", "queue": "1s", "firstToken": "1s", "total": "2s"}},
    {"responseCache": {"enabled": True}},
    {"promptCache": {"enabled": True, "maxBytes": "1Gi"}},
    {"promptCache": {"enabled": False}},
    {"promptCache": {"enabled": True, "maxBytes": "2Gi"}, "engine": {"type": "vllm"}},
    {"promptCache": {"enabled": False}, "engine": {"type": "vllm"}},
    {"auth": {"required": True}},
    {"autoscaling": {"minReplicas": 0, "maxReplicas": 2, "scaleDownDelay": "5m"}},
    {"replicas": 3, "suspend": True, "nodeSelector": {"a": "b"}},
    {"model": {"name": "x", "aliases": ["y"], "contextLength": 5}},
]


@pytest.mark.parametrize(("spec", "field"), REPORTED)
def test_a_field_without_effect_is_reported(spec, field):
    assert unsupported_by_model(a_spec(**spec)) == (field,)


def test_there_is_nothing_to_scale_outside_of_the_cluster():
    outside = {"type": "external", "external": {"url": "https://x"}}
    assert "autoscaling" in unsupported_by_model(
        a_spec(engine=outside, autoscaling={"maxReplicas": 2})
    )


@pytest.mark.parametrize("spec", HONORED)
def test_a_field_with_effect_is_not(spec):
    assert unsupported_by_model(a_spec(**spec)) == ()


@pytest.mark.parametrize(
    ("accelerator", "name"), [("nvidia", "vllm"), ("amd", "vllm"), ("apple", "mlx"), ("cpu", "mlx")]
)
def test_the_engine_follows_the_accelerator(accelerator, name):
    assert engine(a_spec(accelerator={"type": accelerator})) == name
