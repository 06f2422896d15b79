"""What a spec becomes: the same bytes for the same spec, and each field where it belongs."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pippin_contract import serverconfig, wire
from pippin_operator.render.children import render
from pippin_operator.render.context import Model, RenderContext
from pippin_operator.render.names import CONFIG_HASH, MANIFEST_HASH
from support.models import CONTEXT, a_model

#: Of a hundred requests to an echo engine, how many end in which way.
LOTS = {"errorPercent": 1, "overloadedPercent": 2, "outOfMemoryPercent": 3, "brokenPercent": 4}


def child(model: Model, kind: str, ctx: RenderContext = CONTEXT) -> dict[str, Any]:
    (found,) = [manifest for manifest in render(model, ctx) if manifest["kind"] == kind]
    return found


def pod(**spec: Any) -> dict[str, Any]:
    template = child(a_model(**spec), "Deployment")["spec"]["template"]
    found: dict[str, Any] = template["spec"]
    return found


def container(**spec: Any) -> dict[str, Any]:
    (found,) = pod(**spec)["containers"]
    return dict(found)


def config(**spec: Any) -> serverconfig.ServerConfig:
    return serverconfig.load(child(a_model(**spec), "ConfigMap")["data"]["server.json"])


def volume(name: str, **spec: Any) -> dict[str, Any]:
    (found,) = [entry for entry in pod(**spec)["volumes"] if entry["name"] == name]
    return dict(found)


def mount(name: str, **spec: Any) -> dict[str, Any]:
    (found,) = [entry for entry in container(**spec)["volumeMounts"] if entry["name"] == name]
    return dict(found)


def test_the_same_spec_gives_the_same_bytes():
    assert render(a_model(), CONTEXT) == render(a_model(), CONTEXT)


def test_the_four_children_are_named_after_the_model():
    names = {m["kind"]: m["metadata"]["name"] for m in render(a_model(), CONTEXT)}
    assert names == {
        "ConfigMap": "qwen-server",
        "Service": "qwen",
        "Deployment": "qwen",
        "ServiceMonitor": "qwen",
    }


def test_selectors_hold_nothing_that_can_change():
    one = child(a_model(), "Deployment")["spec"]["selector"]
    other = child(
        a_model(engine={"type": "echo"}, model={"name": "other"}, accelerator={"type": "nvidia"}),
        "Deployment",
    )["spec"]["selector"]
    assert one == other
    assert one["matchLabels"] == {
        wire.LABEL_NAME: wire.SERVER_APP,
        wire.LABEL_INSTANCE: "qwen",
    }


def test_users_labels_do_not_override_ours():
    labels = {wire.LABEL_INSTANCE: "evil", "team": "a"}
    template = child(a_model(podTemplate={"metadata": {"labels": labels}}), "Deployment")
    found = template["spec"]["template"]["metadata"]["labels"]
    assert found[wire.LABEL_INSTANCE] == "qwen"
    assert found["team"] == "a"


def test_a_new_config_rolls_the_pods_and_an_old_one_does_not():
    def hashed(**spec: Any) -> str:
        metadata = child(a_model(**spec), "Deployment")["spec"]["template"]["metadata"]
        return str(metadata["annotations"][CONFIG_HASH])

    assert hashed() == hashed(replicas=5)
    assert hashed() != hashed(engine={"args": ["--x"]})


def test_a_changed_manifest_has_another_hash():
    def hashed(**spec: Any) -> str:
        return str(child(a_model(**spec), "Deployment")["metadata"]["annotations"][MANIFEST_HASH])

    assert hashed() != hashed(nodeSelector={"disk": "fast"})


@pytest.mark.parametrize(
    ("spec", "replicas"),
    [
        ({}, 1),
        ({"replicas": 3}, 3),
        ({"replicas": 0}, 0),
        ({"replicas": 3, "suspend": True}, 0),
        ({"autoscaling": {"maxReplicas": 3}, "suspend": True}, 0),
    ],
)
def test_replicas(spec, replicas):
    assert child(a_model(**spec), "Deployment")["spec"]["replicas"] == replicas


@pytest.mark.parametrize(
    ("bounds", "scaled", "replicas"),
    [
        ({"maxReplicas": 3}, None, 1),
        ({"minReplicas": 0, "maxReplicas": 3}, None, 0),
        ({"minReplicas": 0, "maxReplicas": 3}, 2, 2),
        ({"minReplicas": 2, "maxReplicas": 3}, 0, 2),
        ({"minReplicas": 0, "maxReplicas": 3}, 7, 3),
    ],
)
def test_with_autoscaling_replicas_follow_the_load_within_the_bounds(bounds, scaled, replicas):
    model = replace(a_model(autoscaling=bounds), scaled=scaled)
    assert child(model, "Deployment")["spec"]["replicas"] == replicas


def test_another_number_of_replicas_is_no_rollout():
    model = a_model(autoscaling={"maxReplicas": 3})
    one, two = (child(replace(model, scaled=n), "Deployment")["spec"] for n in (1, 2))
    assert one["replicas"] != two["replicas"]
    assert one["template"] == two["template"]


@pytest.mark.parametrize("provider", ["keda", "hpa"])
def test_replicas_are_left_to_who_scales(provider):
    model = a_model(autoscaling={"maxReplicas": 3, "provider": provider})
    assert "replicas" not in child(model, "Deployment")["spec"]


@pytest.mark.parametrize(
    ("spec", "image"),
    [
        ({}, "registry.example/pippin-server:0.1.0-mlx"),
        ({"engine": {"type": "echo"}}, "registry.example/pippin-server:0.1.0-mlx"),
        ({"accelerator": {"type": "nvidia"}}, "registry.example/pippin-server:0.1.0-vllm"),
        ({"engine": {"type": "vllm"}}, "registry.example/pippin-server:0.1.0-vllm-cpu"),
        ({"engine": {"image": "mine:1"}}, "mine:1"),
    ],
)
def test_the_image_follows_the_engine(spec, image):
    assert container(**spec)["image"] == image


def test_vllm_has_shared_memory_and_room_for_a_gpus_batch():
    spec = {"accelerator": {"type": "nvidia"}}
    (shm,) = [v for v in pod(**spec)["volumes"] if v["name"] == "shm"]
    assert shm["emptyDir"] == {"medium": "Memory"}
    mounts = container(**spec)["volumeMounts"]
    assert {"name": "shm", "mountPath": "/dev/shm"} in mounts
    assert (config(**spec).max_concurrency, config().max_concurrency) == (256, 32)
    assert "shm" not in {v["name"] for v in pod()["volumes"]}


def test_pods_are_as_pod_security_restricted_wants_them():
    security = pod()["securityContext"]
    assert (security["runAsNonRoot"], security["runAsUser"]) == (True, 65532)
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod()["automountServiceAccountToken"] is False


def test_probes_give_a_model_its_time_to_load():
    found = container(probes={"startupTimeout": "10m"})
    startup = found["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] == 600
    assert startup["httpGet"] == {"path": "/ready", "port": "http", "scheme": "HTTP"}
    assert found["livenessProbe"]["httpGet"]["path"] == "/livez"
    deployment = child(a_model(probes={"startupTimeout": "10m"}), "Deployment")["spec"]
    assert deployment["progressDeadlineSeconds"] > 600


def test_a_pod_outlives_its_draining():
    assert pod(drain={"timeout": "90s"})["terminationGracePeriodSeconds"] == 105
    hook = container()["lifecycle"]["preStop"]["exec"]["command"]
    assert hook == ["pippin-server", "drain"]
    assert config(drain={"timeout": "90s"}).drain_timeout_seconds == 90


def test_a_directory_of_the_node_is_mounted_read_only():
    uri = {"model": {"uri": "file:///srv/models/smollm2/"}}
    assert volume("model", **uri)["hostPath"] == {
        "path": "/srv/models/smollm2",
        "type": "Directory",
    }
    assert mount("model", **uri) == {
        "name": "model",
        "mountPath": "/models/smollm2",
        "readOnly": True,
    }
    assert config(**uri).model.path == "/models/smollm2"


@pytest.mark.parametrize(
    ("uri", "claim", "path"),
    [
        ("pvc://models/qwen/7b", "models", "/models/qwen/7b"),
        ("pvc://models", "models", "/models"),
        ("pvc://models/../../etc", "models", "/models/etc"),
    ],
)
def test_a_claim_is_mounted_whole(uri, claim, path):
    spec = {"model": {"uri": uri}}
    assert volume("model", **spec)["persistentVolumeClaim"]["claimName"] == claim
    assert mount("model", **spec)["mountPath"] == "/models"
    assert config(**spec).model.path == path


def test_weights_from_the_hub_are_fetched_by_the_server_with_its_token():
    spec = {"model": {"credentialsSecretRef": {"name": "hf", "key": "token"}}}
    found = config(**spec).model
    assert (found.uri, found.path) == ("hf://org/model", "")
    secret = volume("credentials", **spec)["secret"]
    assert secret == {"secretName": "hf", "items": [{"key": "token", "path": "token"}]}
    directory = mount("credentials", **spec)["mountPath"]
    assert found.token_file == f"{directory}/token"
    assert mount("cache", **spec)["mountPath"] == wire.CACHE_DIR


def test_a_token_without_the_name_of_its_key_is_the_key_token():
    model = {"uri": "https://host/x.tar", "credentialsSecretRef": {"name": "web"}}
    secret = volume("credentials", model=model)["secret"]
    assert secret == {"secretName": "web", "items": [{"key": "token", "path": "token"}]}


@pytest.mark.parametrize("uri", ["s3://bucket/path", "oci://registry/name:tag"])
def test_sources_with_several_keys_get_the_whole_secret(uri):
    model = {"uri": uri, "credentialsSecretRef": {"name": "keys"}}
    assert volume("credentials", model=model)["secret"] == {"secretName": "keys"}
    found = config(model=model).model
    assert (found.uri, found.token_file) == (uri, "")
    assert found.credentials_dir == mount("credentials", model=model)["mountPath"]


def test_of_a_secret_only_the_key_that_is_named_is_mounted():
    reference = {"name": "pull", "key": ".dockerconfigjson"}
    model = {"uri": "oci://registry/name", "credentialsSecretRef": reference}
    assert volume("credentials", model=model)["secret"]["items"] == [
        {"key": ".dockerconfigjson", "path": ".dockerconfigjson"}
    ]


ADAPTERS = [
    {"name": "sql", "uri": "hf://org/sql"},
    {"name": "poet", "uri": "pvc://shelf/lora/poet"},
    {"name": "local", "uri": "file:///srv/local"},
    {"name": "far", "uri": "s3://bucket/far", "credentialsSecretRef": {"name": "store"}},
]


def test_adapters_are_mounted_or_fetched_as_weights_are():
    found = config(model={"uri": "s3://bucket/qwen", "adapters": ADAPTERS}).adapters
    assert [(one.name, one.uri, one.path) for one in found] == [
        ("sql", "hf://org/sql", ""),
        ("poet", "pvc://shelf/lora/poet", "/adapters/1/lora/poet"),
        ("local", "file:///srv/local", "/adapters/2/local"),
        ("far", "s3://bucket/far", ""),
    ]
    assert found[3].credentials_dir == "/etc/pippin/adapter-credentials/3"
    spec: Any = {"model": {"uri": "pvc://shelf/qwen", "adapters": ADAPTERS}}
    claims = [
        v["persistentVolumeClaim"]
        for v in pod(**spec)["volumes"]
        if len(v) > 1 and "persistentVolumeClaim" in v
    ]
    assert [claim["claimName"] for claim in claims] == ["shelf", "shelf"]
    assert volume("adapter-2", **spec)["hostPath"]["path"] == "/srv/local"
    assert volume("adapter-3-credentials", **spec)["secret"] == {"secretName": "store"}
    assert mount("adapter-1", **spec) == {
        "name": "adapter-1",
        "mountPath": "/adapters/1",
        "readOnly": True,
    }


def test_the_models_token_is_shown_to_adapters_of_the_same_hub_only():
    hub = {"uri": "hf://org/qwen", "credentialsSecretRef": {"name": "hf"}}
    elsewhere = [{"name": "away", "uri": "https://host/x.tar"}, *ADAPTERS]
    found = {one.name: one for one in config(model={**hub, "adapters": elsewhere}).adapters}
    assert found["sql"].token_file == "/etc/pippin/adapter-credentials/1/token"
    assert found["away"].token_file == ""
    assert volume("adapter-1-credentials", model={**hub, "adapters": elsewhere})["secret"] == {
        "secretName": "hf",
        "items": [{"key": "token", "path": "token"}],
    }


def test_another_adapter_rolls_the_pods():
    def version(*adapters: dict[str, Any]) -> str:
        model = a_model(model={"uri": "hf://org/qwen", "adapters": list(adapters)})
        template = child(model, "Deployment")["spec"]["template"]
        found: str = template["metadata"]["annotations"][CONFIG_HASH]
        return found

    assert len({version(), version(ADAPTERS[0]), version(*ADAPTERS[:2])}) == 3
    assert version(ADAPTERS[0]) == version(ADAPTERS[0])


def test_where_adapters_have_no_effect_none_are_rendered():
    spec: Any = {"model": {"uri": "hf://a/b", "task": "embedding", "adapters": ADAPTERS}}
    assert config(**spec).adapters == ()
    assert not [v for v in pod(**spec)["volumes"] if v["name"].startswith("adapter")]


def test_the_config_says_what_the_spec_says():
    found = config(
        model={
            "name": "served",
            "aliases": ["a"],
            "task": "completion",
            "contextLength": 99,
            "family": "qwen",
            "tags": ["x"],
            "description": "words",
        },
        engine={"type": "echo", "args": ["--y"], "echo": {"loadDelay": "2s", "seed": 7, **LOTS}},
        limits={"concurrency": 3, "queue": 4},
        timeouts={"queue": "5s"},
        probes={"livenessStall": "2m"},
    )
    assert (found.namespace, found.name, found.served_name) == ("team-a", "qwen", "served")
    assert (found.aliases, found.engine, found.engine_args) == (("a",), "echo", ("--y",))
    assert (found.echo.load_seconds, found.echo.seed) == (2, 7)
    assert found.echo.model_dump(by_alias=True).items() >= LOTS.items()
    assert (found.max_concurrency, found.max_queue, found.queue_timeout_seconds) == (3, 4, 5)
    assert found.liveness_stall_seconds == 120
    assert found.auth.audience == "team-a/qwen"
    assert [key.kid for key in found.auth.public_keys] == ["a" * 16, "b" * 16]
    model = found.model
    assert (model.task, model.context_length, model.family) == ("completion", 99, "qwen")
    assert (model.tags, model.description) == (("x",), "words")


@pytest.mark.parametrize("task", ["transcription", "image"])
@pytest.mark.parametrize("engine", ["mlx", "echo"])
def test_an_engine_is_told_to_hear_or_to_paint(engine, task):
    found = config(model={"task": task}, engine={"type": engine})
    assert (found.engine, found.model.task) == (engine, task)


def test_the_config_of_an_embedding_model_says_how_texts_share_batches():
    found = config(
        model={"task": "embedding"},
        engine={"type": "echo", "echo": {"dimensions": 12}},
        batching={"maxBatchSize": 8, "window": "20ms"},
    )
    assert found.model.task == "embedding"
    assert (found.batching.max_batch_size, found.batching.window_seconds) == (8, 0.02)
    assert found.echo.dimensions == 12
    default = config(model={"task": "embedding"}).batching
    assert (default.max_batch_size, default.window_seconds) == (32, 0.1)


@pytest.mark.parametrize(
    ("spec", "enabled", "max_bytes"),
    [
        ({}, True, None),
        ({"promptCache": {}}, True, 2 * 2**30),
        ({"promptCache": {"maxBytes": "1.5Gi"}}, True, 3 * 2**29),
        ({"promptCache": {"enabled": False}}, False, 2 * 2**30),
    ],
)
def test_the_prompt_cache_is_as_large_as_the_spec_says(spec, enabled, max_bytes):
    found = config(**spec).prompt_cache
    assert (found.enabled, found.max_bytes) == (enabled, max_bytes)


def test_the_narrow_escape_hatch_reaches_the_pod():
    found = pod(
        podTemplate={
            "volumes": [{"name": "extra", "emptyDir": {}}],
            "volumeMounts": [{"name": "extra", "mountPath": "/extra"}],
            "securityContext": {"runAsUser": 1000},
        },
        priorityClassName="high",
        runtimeClassName="gvisor",
        affinity={"nodeAffinity": {}},
        engine={"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]},
    )
    assert {"name": "extra", "emptyDir": {}} in found["volumes"]
    assert {"name": "extra", "mountPath": "/extra"} in found["containers"][0]["volumeMounts"]
    assert found["securityContext"]["runAsUser"] == 1000
    assert (found["priorityClassName"], found["runtimeClassName"]) == ("high", "gvisor")
    assert found["affinity"] == {"nodeAffinity": {}}
    assert found["containers"][0]["env"] == [
        {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}
    ]


def test_no_monitor_without_its_api_or_the_wish():
    without = RenderContext("i", "Always", (), monitoring_api=False)
    for model, ctx in ((a_model(), without), (a_model(monitoring={"enabled": False}), CONTEXT)):
        assert "ServiceMonitor" not in {m["kind"] for m in render(model, ctx)}


def test_the_monitor_bears_the_labels_that_prometheus_looks_for():
    found = child(
        a_model(monitoring={"labels": {"release": "prom"}, "interval": "10s"}), "ServiceMonitor"
    )
    assert found["metadata"]["labels"]["release"] == "prom"
    assert found["spec"]["endpoints"][0]["interval"] == "10s"


@pytest.mark.parametrize(
    "spec",
    [
        {"engine": {"type": "external", "external": {"url": "https://x"}}},
        {"model": {"uri": "gs://bucket/x"}},
        {"model": {"task": "image"}, "engine": {"type": "vllm"}},
    ],
)
def test_what_needs_no_pods_or_could_not_run_makes_no_children(spec):
    assert render(a_model(**spec), CONTEXT) == ()


@given(
    st.sampled_from(["cpu", "apple", "nvidia", "amd"]),
    st.integers(0, 256),
    st.lists(st.text(max_size=20), max_size=3),
    st.sampled_from(
        ["hf://a/b", "pvc://c/d", "file:///e/f", "s3://g/h", "oci://i/j", "https://k/l.zip"]
    ),
)
def test_rendering_is_total(accelerator, replicas, args, uri):
    model = a_model(
        accelerator={"type": accelerator},
        replicas=replicas,
        engine={"args": args},
        model={"uri": uri},
    )
    for manifest in render(model, CONTEXT):
        assert manifest["metadata"]["ownerReferences"][0]["uid"] == "uid-1"


def test_weights_are_kept_on_a_volume_when_one_is_asked_for():
    assert volume("cache") == {"name": "cache", "emptyDir": {}}
    kept = {"name": "cache", "persistentVolumeClaim": {"claimName": "qwen-weights"}}
    assert volume("cache", storage={}) == kept
    assert volume("cache", storage={}, model={"uri": "pvc://mine/x"})["emptyDir"] == {}


def test_pods_that_share_a_volume_of_one_node_would_rather_be_there():
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    (term,) = pod(storage={})["affinity"]["podAffinity"][preferred]
    assert term["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"
    assert "affinity" not in pod(storage={"accessMode": "ReadWriteMany"})
    mine = {"podAffinity": {preferred: []}, "nodeAffinity": {"a": {}}}
    assert pod(storage={}, affinity=mine)["affinity"] == mine


@pytest.mark.parametrize(("mode", "strategy"), [("ReadWriteOncePod", "Recreate"), (None, None)])
def test_a_volume_for_one_pod_alone_is_let_go_first(mode: str | None, strategy: str | None):
    storage = {"storage": {"accessMode": mode}} if mode else {}
    deployment = child(a_model(accelerator={"type": "cpu"}, **storage), "Deployment")
    assert deployment["spec"]["strategy"]["type"] == (strategy or "RollingUpdate")
