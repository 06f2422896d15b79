"""Every field does something, or is named as one that does not yet."""

import pytest

from pippin_operator.api.honored import engine, unsupported_by_model
from pippin_operator.api.modeldeployment import ModelDeploymentSpec
from support.manifests import merged
from support.models import a_spec

EXTERNAL = {"type": "external", "external": {"url": "https://x"}}
ADAPTERS = [{"name": "a", "uri": "hf://a/b"}]
#: Of a model of a provider, which has neither Pods nor weights.
REPORTED_OUTSIDE = [
    ({"replicas": 0}, "replicas"),
    ({"model": {"uri": "hf://a/b"}}, "model.uri"),
    ({"model": {"adapters": ADAPTERS}}, "model.adapters"),
    ({"engine": {"args": ["--x"]}}, "engine.args"),
    ({"nodeSelector": {"a": "b"}}, "nodeSelector"),
    ({"limits": {"queue": 1}}, "limits.queue"),
    ({"timeouts": {"queue": "1s"}}, "timeouts.queue"),
    ({"autoscaling": {"maxReplicas": 2}}, "autoscaling"),
]
HONORED_OUTSIDE = [
    {"limits": {"rpm": 1, "tpm": 1, "concurrency": 1}},
    {"retries": {"attempts": 1}, "fallbacks": ["x"], "suspend": True},
    {"timeouts": {"total": "2s"}, "responseCache": {"enabled": True}},
    {"model": {"name": "x", "aliases": ["y"], "contextLength": 5, "task": "embedding"}},
]
REPORTED = [
    ({"model": {"adapters": ADAPTERS, "task": "embedding"}}, "model.adapters"),
    (
        {"model": {"adapters": ADAPTERS, "task": "image"}, "engine": {"type": "echo"}},
        "model.adapters",
    ),
    ({"model": {"uri": "gs://bucket/x"}}, "model.uri"),
    ({"model": {"task": "image"}, "engine": {"type": "vllm"}}, "model.task"),
    ({"model": {"task": "transcription"}, "engine": {"type": "vllm"}}, "model.task"),
    ({"model": {"task": "image"}, "accelerator": {"type": "nvidia"}}, "model.task"),
    ({"accelerator": {"type": "amd"}}, "accelerator.type"),
    ({"engine": {"type": "mlx", "echo": {"seed": 1}}}, "engine.echo"),
    ({"autoscaling": {"maxReplicas": 2, "provider": "keda"}}, "autoscaling.provider"),
    ({"autoscaling": {"maxReplicas": 2, "provider": "hpa"}}, "autoscaling.provider"),
    ({"batching": {}}, "batching"),
    ({"batching": {}, "model": {"task": "embedding"}, "engine": {"type": "vllm"}}, "batching"),
    ({"promptCache": {}, "engine": {"type": "echo"}}, "promptCache"),
    ({"promptCache": {}, "model": {"task": "embedding"}}, "promptCache"),
    ({"promptCache": {}, "model": {"task": "transcription"}}, "promptCache"),
    ({"promptCache": {}, "model": {"task": "image"}}, "promptCache"),
    ({"promptCache": {"maxBytes": "1Gi"}, "engine": {"type": "vllm"}}, "promptCache.maxBytes"),
    ({"storage": {}, "accelerator": {"type": "apple"}}, "storage"),
    ({"storage": {}, "model": {"uri": "pvc://claim/x"}}, "storage"),
    ({"storage": {}, "engine": {"type": "echo"}, "model": {"uri": None}}, "storage"),
    ({"auth": {"required": False}}, "auth.required"),
]
HONORED = [
    {"model": {"adapters": ADAPTERS}},
    {"model": {"adapters": ADAPTERS, "task": "completion"}, "engine": {"type": "vllm"}},
    {"model": {"adapters": ADAPTERS}, "engine": {"type": "echo"}},
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
    {"model": {"task": "transcription"}},
    {"model": {"task": "transcription"}, "accelerator": {"type": "apple"}},
    {"model": {"task": "image"}},
    {"model": {"task": "image"}, "accelerator": {"type": "apple"}},
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
    {"storage": {"retain": False}},
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


def outside(spec):
    base = {"model": {}, "engine": EXTERNAL}
    return ModelDeploymentSpec.model_validate(merged(base, spec))


@pytest.mark.parametrize(("spec", "field"), REPORTED_OUTSIDE)
def test_what_is_of_pods_is_reported_of_a_provider(spec, field):
    assert unsupported_by_model(outside(spec)) == (field,)


@pytest.mark.parametrize("spec", HONORED_OUTSIDE)
def test_what_the_gateway_does_holds_for_a_provider_too(spec):
    assert unsupported_by_model(outside(spec)) == ()


@pytest.mark.parametrize(
    ("accelerator", "name"), [("nvidia", "vllm"), ("amd", "vllm"), ("apple", "mlx"), ("cpu", "mlx")]
)
def test_the_engine_follows_the_accelerator(accelerator, name):
    assert engine(a_spec(accelerator={"type": accelerator})) == name
