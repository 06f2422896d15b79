"""What the API server refuses, and that it names the field and the fix."""

import subprocess

import pytest
import yaml

from support.manifests import key, model
from support.operator_process import Cluster

MLX = {"type": "mlx"}
EXTERNAL = {"type": "external", "external": {"url": "https://api.example.com/v1"}}

REFUSED_MODELS = [
    # spec, field that is named, words that are said
    ({"engine": MLX, "model": {"uri": "ftp://x/y"}}, "spec.model.uri", "must start with hf://"),
    ({"engine": MLX, "model": {"uri": "hf://"}}, "spec.model.uri", "must start with hf://"),
    ({"engine": MLX}, "spec.model.uri", "needed unless engine.type is echo or external"),
    ({"engine": {"type": None}}, "spec.model.uri", "needed unless"),
    ({"engine": {"type": "magic"}}, "spec.engine.type", '"mlx", "vllm", "echo", "external"'),
    ({"engine": {"type": "external"}}, "spec.engine.external", "exactly when type is external"),
    ({"engine": {**EXTERNAL, "type": "echo"}}, "spec.engine.external", "exactly when"),
    (
        {"engine": {"type": "external", "external": {"url": "api.example.com"}}},
        "spec.engine.external.url",
        "http://",
    ),
    ({"model": {"task": "poetry"}}, "spec.model.task", "supported values"),
    ({"model": {"aliases": ["a", "a"]}}, "spec.model.aliases[1]", "Duplicate value"),
    ({"model": {"aliases": ["a b"]}}, "spec.model.aliases[0]", "should match"),
    ({"model": {"aliases": [""]}}, "spec.model.aliases[0]", "at least 1 chars"),
    ({"model": {"name": "a/b"}}, "spec.model.name", "should match"),
    ({"auth": {"namespaces": ["Team_B"]}}, "spec.auth.namespaces[0]", "should match"),
    ({"auth": {"namespaces": ["team-*"]}}, "spec.auth.namespaces[0]", "should match"),
    ({"model": {"contextLength": 0}}, "spec.model.contextLength", "greater than or equal to 1"),
    (
        {"model": {"adapters": [{"name": "a", "uri": "hf://a/b"}] * 2}},
        "spec.model.adapters[1]",
        "Duplicate value",
    ),
    (
        {"model": {"adapters": [{"name": "a", "uri": "a/b"}]}},
        "spec.model.adapters[0].uri",
        "must start with",
    ),
    (
        {"replicas": 2, "autoscaling": {"maxReplicas": 2}},
        "spec.replicas",
        "replicas and autoscaling exclude each other",
    ),
    (
        {"autoscaling": {"minReplicas": 5, "maxReplicas": 2}},
        "spec.autoscaling.minReplicas",
        "must not be more than maxReplicas",
    ),
    ({"autoscaling": {}}, "spec.autoscaling.maxReplicas", "Required value"),
    ({"replicas": -1}, "spec.replicas", "greater than or equal to 0"),
    ({"accelerator": {"type": "nvidia", "count": 0}}, "spec.accelerator.count", "at least 1"),
    ({"accelerator": {"type": "tpu"}}, "spec.accelerator.type", "supported values"),
    ({"accelerator": {"memory": "lots"}}, "spec.accelerator.memory", "should match"),
    ({"limits": {"rpm": 0}}, "spec.limits.rpm", "greater than or equal to 1"),
    ({"limits": {"concurrency": 0}}, "spec.limits.concurrency", "greater than or equal to 1"),
    ({"timeouts": {"total": "soon"}}, "spec.timeouts.total", "should match"),
    (
        {"timeouts": {"firstToken": "2m", "request": "1m"}},
        "spec.timeouts.firstToken",
        "must not be longer than request",
    ),
    (
        {"timeouts": {"request": "10m", "total": "5m"}},
        "spec.timeouts.request",
        "must not be longer than total",
    ),
    (
        {"timeouts": {"firstToken": "10m", "total": "5m"}},
        "spec.timeouts.firstToken",
        "must not be longer than total",
    ),
    (
        {"timeouts": {"streamIdle": "1h", "total": "300s"}},
        "spec.timeouts.streamIdle",
        "must not be longer than total",
    ),
    ({"fallbacks": ["self"]}, "spec.fallbacks", "its own fallback"),
    ({"fallbacks": ["b", "b"]}, "spec.fallbacks[1]", "Duplicate value"),
    ({"retries": {"attempts": 0}}, "spec.retries.attempts", "greater than or equal to 1"),
    ({"retries": {"backoff": "1"}}, "spec.retries.backoff", "should match"),
    ({"circuitBreaker": {"failures": 0}}, "spec.circuitBreaker.failures", "greater than"),
    ({"responseCache": {"ttl": "1 hour"}}, "spec.responseCache.ttl", "should match"),
    ({"batching": {"maxBatchSize": 0}}, "spec.batching.maxBatchSize", "greater than"),
    ({"promptCache": {"maxBytes": "2GB"}}, "spec.promptCache.maxBytes", "should match"),
    ({"storage": {"size": "-1Gi"}}, "spec.storage.size", "should match"),
    ({"storage": {"accessMode": "Any"}}, "spec.storage.accessMode", "supported values"),
    ({"probes": {"startupTimeout": "forever"}}, "spec.probes.startupTimeout", "should match"),
    ({"drain": {"timeout": "-1s"}}, "spec.drain.timeout", "should match"),
    ({"monitoring": {"interval": "often"}}, "spec.monitoring.interval", "should match"),
    ({"resources": {"requests": {"cpu": "two"}}}, "spec.resources.requests.cpu", "should match"),
    ({"engine": {"type": "echo", "echo": {"errorPercent": 101}}}, "errorPercent", "less than"),
]


@pytest.mark.parametrize(("spec", "field", "words"), REFUSED_MODELS)
def test_a_wrong_model_is_refused_by_field(cluster: Cluster, namespace: str, spec, field, words):
    manifest = model("self", namespace, **spec)
    if manifest["spec"]["engine"]["type"] is None:
        del manifest["spec"]["engine"]
    said = refusal(cluster, manifest)
    assert field in said
    assert words in said


REFUSED_KEYS = [
    ({"models": [""]}, "spec.models[0]", "at least 1 chars"),
    ({"models": ["a", "a"]}, "spec.models[1]", "Duplicate value"),
    ({"limits": {"rpm": 0}}, "spec.limits.rpm", "greater than or equal to 1"),
    ({"limits": {"tokensPerDay": 0}}, "spec.limits.tokensPerDay", "greater than"),
    ({"expiresAt": "tomorrow"}, "spec.expiresAt", "date-time"),
    (
        {"rotation": {"interval": "24h", "overlap": "24h"}},
        "spec.rotation.overlap",
        "must be shorter than interval",
    ),
    ({"rotation": {"interval": "12h"}}, "spec.rotation.overlap", "must be shorter"),
    ({"rotation": {"interval": "monthly"}}, "spec.rotation.interval", "should match"),
    (
        {"existingSecretRef": {"name": "a", "key": "b"}, "rotation": {"interval": "720h"}},
        "spec.rotation",
        "not possible with existingSecretRef",
    ),
    (
        {"existingSecretRef": {"name": "a", "key": "b"}, "secretName": "c"},
        "spec.secretName",
        "not used with existingSecretRef",
    ),
    ({"existingSecretRef": {"name": "a"}}, "spec.existingSecretRef.key", "Required value"),
    ({"egress": "Maybe"}, "spec.egress", "supported values"),
    ({"priority": "urgent"}, "spec.priority", "supported values"),
    ({"secretName": "Not A Name"}, "spec.secretName", "should match"),
]


@pytest.mark.parametrize(("spec", "field", "words"), REFUSED_KEYS)
def test_a_wrong_key_is_refused_by_field(cluster: Cluster, namespace: str, spec, field, words):
    said = refusal(cluster, key("app", namespace, **spec))
    assert field in said
    assert words in said


@pytest.mark.parametrize("name", ["a" * 41, "9lives", "dotted.name"])
def test_a_name_that_children_could_not_bear_is_refused(
    cluster: Cluster, namespace: str, name: str
):
    assert "metadata.name" in refusal(cluster, model(name, namespace))


def test_the_longest_name_is_taken(cluster: Cluster, namespace: str):
    cluster.create("modeldeployments", model("a" * 40, namespace))


def test_the_task_cannot_be_changed(cluster: Cluster, namespace: str):
    cluster.create("modeldeployments", model("fixed", namespace))
    said = refusal(cluster, model("fixed", namespace, model={"task": "completion"}))
    assert "spec.model.task" in said
    assert "make a new ModelDeployment" in said


def test_every_field_at_its_best_is_taken(cluster: Cluster, namespace: str):
    """The whole of what the reference page shows, less what excludes each other."""
    spec = {
        "model": {
            "uri": "hf://org/model@main",
            "name": "served",
            "aliases": ["one", "two"],
            "adapters": [{"name": "sql", "uri": "hf://org/adapter"}],
            "credentialsSecretRef": {"name": "hf", "key": "token"},
        },
        "engine": {"type": "mlx", "args": ["--x"], "env": [{"name": "A", "value": "b"}]},
        "autoscaling": {"minReplicas": 0, "maxReplicas": 4},
        "resources": {"requests": {"cpu": 2, "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
        "affinity": {"nodeAffinity": {}},
        "podTemplate": {"volumes": [{"name": "x", "emptyDir": {}}]},
        "limits": {"rpm": 1, "tpm": 1, "concurrency": 1, "queue": 1},
        "timeouts": {"firstToken": "30s", "request": "60s", "streamIdle": "120s", "total": "300s"},
        "retries": {},
        "circuitBreaker": {},
        "fallbacks": ["other"],
        "responseCache": {},
        "batching": {},
        "promptCache": {},
        "storage": {},
        "auth": {},
    }
    cluster.create("modeldeployments", model("all", namespace, **spec))


@pytest.mark.parametrize("uri", ["s3://b/m", "oci://r/m:v1", "https://h/m.tar.gz#sha256=0"])
def test_a_source_with_a_whole_secret_is_taken(cluster: Cluster, namespace: str, uri: str):
    source = {"uri": uri, "credentialsSecretRef": {"name": "keys"}}
    cluster.create("modeldeployments", model(f"from-{uri[:2]}", namespace, model=source))


def refusal(cluster: Cluster, manifest: object) -> str:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        cluster.plane.kubectl("apply", "-f-", stdin=yaml.safe_dump(manifest))
    return str(refused.value.stderr)
