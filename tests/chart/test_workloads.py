"""The two Deployments: hardened, probed, bounded, and rolled when their configuration changes."""

from __future__ import annotations

from typing import Any

import pytest

from pippin_contract import __version__, gatewayconfig, wire
from support.chart import EVERYTHING, PRESETS, Chart, select

PARTS = ("operator", "gateway")
PART_AND_PRESET = [(part, preset) for part in PARTS for preset in PRESETS]


def deployment(chart: Chart, part: str, *sets: str, preset: str = "") -> Any:
    return chart.one("Deployment", f"pippin-{part}", *sets, preset=preset)


def pod(chart: Chart, part: str, *sets: str, preset: str = "") -> Any:
    return deployment(chart, part, *sets, preset=preset)["spec"]["template"]["spec"]


def container(chart: Chart, part: str, *sets: str, preset: str = "") -> Any:
    (only,) = pod(chart, part, *sets, preset=preset)["containers"]
    return only


@pytest.mark.parametrize(("part", "preset"), PART_AND_PRESET)
def test_every_pod_is_hardened(chart: Chart, part: str, preset: str) -> None:
    spec = pod(chart, part, preset=preset)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(chart, part, preset=preset)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize(("part", "preset"), PART_AND_PRESET)
def test_every_pod_has_bounds_probes_and_a_pinned_image(
    chart: Chart, part: str, preset: str
) -> None:
    only = container(chart, part, preset=preset)
    assert only["image"] == f"pippin-{part}:{__version__}"
    assert {"cpu", "memory"} <= set(only["resources"]["requests"])
    assert "memory" in only["resources"]["limits"]
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(only)
    # The node agent knows the program by its image; a command would be refused.
    assert "command" not in only
    assert only["args"][0] == "run"


def test_openshift_chooses_the_user_itself(chart: Chart) -> None:
    for part in PARTS:
        assert "runAsUser" not in pod(chart, part, preset="openshift")["securityContext"]
        assert pod(chart, part)["securityContext"]["runAsUser"] == 65532


@pytest.mark.parametrize("preset", PRESETS)
def test_every_object_carries_the_labels(chart: Chart, preset: str) -> None:
    objects = chart.objects(*EVERYTHING, preset=preset)
    assert objects
    for item in objects:
        labels = item["metadata"].get("labels", {})
        assert labels.get("app.kubernetes.io/part-of") == "pippin", item["metadata"]["name"]
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert labels["app.kubernetes.io/version"] == __version__


def test_selectors_hold_nothing_that_an_upgrade_changes(chart: Chart) -> None:
    for part in PARTS:
        assert deployment(chart, part)["spec"]["selector"]["matchLabels"] == {
            "app.kubernetes.io/name": f"pippin-{part}",
            "app.kubernetes.io/instance": "pippin",
            "app.kubernetes.io/component": part,
        }


def test_names_begin_with_the_release(chart: Chart) -> None:
    names = {item["metadata"]["name"] for item in chart.objects(release="team-llm")}
    assert {"team-llm-pippin-operator", "team-llm-pippin-gateway"} <= names


def test_the_operator_never_runs_twice_at_a_time(chart: Chart) -> None:
    spec = deployment(chart, "operator")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_the_operator_is_probed_where_it_listens(chart: Chart) -> None:
    only = container(chart, "operator")
    assert only["ports"] == [{"name": "metrics", "containerPort": wire.OPERATOR_PORT}]
    assert only["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "metrics"}
    assert only["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}


def test_the_gateway_finds_its_files_where_the_contract_says(chart: Chart) -> None:
    only, spec = container(chart, "gateway"), pod(chart, "gateway")
    assert only["args"] == ["run", "--config", wire.GATEWAY_CONFIG_FILE]
    mounts = {mount["name"]: mount["mountPath"] for mount in only["volumeMounts"]}
    directory, _, file = wire.GATEWAY_CONFIG_FILE.rpartition("/")
    assert mounts["config"] == directory
    assert mounts["signing"] == wire.SIGNING_KEY_DIR
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    # Named, so that the Pod waits until the operator has written it.
    assert volumes["signing"]["secret"] == {
        "secretName": wire.SIGNING_SECRET,
        "items": [{"key": wire.SIGNING_CURRENT, "path": wire.SIGNING_CURRENT}],
    }
    assert mounts["admin"] == wire.ADMIN_DIR
    assert volumes["admin"]["secret"] == {
        "secretName": wire.ADMIN_SECRET,
        "items": [{"key": wire.ADMIN_TOKEN, "path": wire.ADMIN_TOKEN}],
    }
    assert file in chart.one("ConfigMap", "pippin-gateway")["data"]
    assert only["ports"] == [{"name": wire.HTTP_PORT_NAME, "containerPort": wire.GATEWAY_PORT}]


def test_the_signing_secret_is_empty_and_stays_with_the_definitions(chart: Chart) -> None:
    kept = chart.one("Secret", wire.SIGNING_SECRET)
    assert not {"data", "stringData"} & set(kept)
    assert kept["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    gone = chart.one("Secret", wire.SIGNING_SECRET, "crds.keep=false")
    assert "annotations" not in gone["metadata"]


def test_the_administrators_secret_is_empty_and_goes_with_the_release(chart: Chart) -> None:
    made = chart.one("Secret", wire.ADMIN_SECRET)
    assert not {"data", "stringData"} & set(made)
    assert "annotations" not in made["metadata"]


def test_a_changed_configuration_rolls_the_gateway_and_nothing_else_does(chart: Chart) -> None:
    def checksum(*sets: str) -> str:
        template = deployment(chart, "gateway", *sets)["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/config"])

    assert checksum("gateway.config.totalTimeoutSeconds=60") != checksum()
    assert checksum("gateway.replicas=5", "ingress.streaming=false") == checksum()


def test_a_rollout_of_the_gateway_loses_no_request(chart: Chart) -> None:
    spec = deployment(chart, "gateway")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    hook = container(chart, "gateway")["lifecycle"]["preStop"]
    assert hook == {"sleep": {"seconds": 5}}
    config = gatewayconfig.load(chart.one("ConfigMap", "pippin-gateway")["data"]["gateway.json"])
    grace = pod(chart, "gateway")["terminationGracePeriodSeconds"]
    assert grace >= hook["sleep"]["seconds"] + config.drain_timeout_seconds + 5


def test_a_host_port_is_freed_before_it_is_taken_again(chart: Chart) -> None:
    sets = ("gateway.hostPort=9000",)
    assert container(chart, "gateway", *sets)["ports"][0]["hostPort"] == 9000
    strategy = deployment(chart, "gateway", *sets)["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_gateway_pods_keep_apart(chart: Chart) -> None:
    spread = pod(chart, "gateway")["topologySpreadConstraints"]
    assert [one["topologyKey"] for one in spread] == [
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    ]


def test_one_gateway_pod_has_no_disruption_budget_that_blocks_drains(chart: Chart) -> None:
    assert select(chart.objects(), "PodDisruptionBudget", "pippin-gateway")
    assert not select(chart.objects("gateway.replicas=1"), "PodDisruptionBudget")
    assert not select(
        chart.objects("gateway.podDisruptionBudget.enabled=false"), "PodDisruptionBudget"
    )


@pytest.mark.parametrize("part", PARTS)
def test_placement_and_extras_reach_the_pod(chart: Chart, part: str) -> None:
    sets = (
        f"{part}.nodeSelector.disk=ssd",
        f"{part}.tolerations[0].key=dedicated",
        f"{part}.affinity.podAffinity.x=y",
        f"{part}.priorityClassName=high",
        f"{part}.podAnnotations.note=hello",
        f"{part}.extraEnv[0].name=HTTPS_PROXY",
        f"{part}.extraEnv[0].value=http://proxy:3128",
        "images.pullSecrets[0]=registry",
    )
    template = deployment(chart, part, *sets)["spec"]["template"]
    spec = template["spec"]
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux", "disk": "ssd"}
    assert spec["tolerations"] == [{"key": "dedicated"}]
    assert spec["affinity"] == {"podAffinity": {"x": "y"}}
    assert spec["priorityClassName"] == "high"
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert template["metadata"]["annotations"]["note"] == "hello"
    env = spec["containers"][0]["env"]
    assert {"name": "HTTPS_PROXY", "value": "http://proxy:3128"} in env


def test_images_come_from_the_registry_and_by_digest(chart: Chart) -> None:
    digest = "sha256:" + "ab" * 32
    sets = (
        "images.registry=registry.example.com/pippin/",
        "images.gateway.tag=1.2.3",
        f"images.gateway.digest={digest}",
    )
    image = container(chart, "gateway", *sets)["image"]
    assert image == f"registry.example.com/pippin/pippin-gateway:1.2.3@{digest}"
    env = {item["name"]: item.get("value") for item in container(chart, "operator", *sets)["env"]}
    assert (
        env["PIPPIN_OPERATOR_SERVER_IMAGE"]
        == f"registry.example.com/pippin/pippin-server:{__version__}"
    )


def test_the_embedded_preset_suits_a_node_without_a_network(chart: Chart) -> None:
    objects = chart.objects(preset="embedded")
    assert not select(objects, "NetworkPolicy")
    gateway = container(chart, "gateway", preset="embedded")
    assert gateway["ports"][0]["hostPort"] == wire.GATEWAY_PORT
    # The node agent runs hooks of our own programs only.
    assert "lifecycle" not in gateway
    for part in PARTS:
        spec = pod(chart, part, preset="embedded")
        assert "nodeSelector" not in spec
        assert container(chart, part, preset="embedded")["imagePullPolicy"] == "Never"
