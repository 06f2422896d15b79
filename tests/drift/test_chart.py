"""The chart says the same as the programs that it starts."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import docs
import yaml

from pippin_contract import __version__, gatewayconfig, wire
from pippin_operator.settings import Settings
from support.chart import CHART, Chart, select

ROOT = CHART.parents[1]
#: Given by the chart from the contract, not from values.
FIXED = {
    *("version", "port", "namespace"),
    *("signingKeyDir", "adminDir", "redisSecretDir", "providerCaDir", "snapshotDir"),
}
#: Values that are none of their type's others.
OTHERS = {
    "redisUrl": "rediss://counter@redis.example:6380/1",
    "redisAway": "failOpen",
    "tracesUrl": "http://collector.example:4318/v1/traces",
    "tracesShare": 0,
    "providerNetworks": ["10.1.0.0/16", "127.0.0.1/32"],
}
#: Lists in braces, text without quotes.
AS_HELM_WRITES = str.maketrans({"[": "{", "]": "}", '"': "", " ": ""})
#: Settings that keep their defaults; `operator.extraEnv` reaches them.
LEFT_ALONE = {
    "kubeconfig",
    "host",
    "port",
    "concurrency",
    "resync_seconds",
    "key_check_seconds",
    "api_check_seconds",
}


def test_every_place_says_the_same_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {chart["version"], chart["appVersion"], project["version"]} == {__version__}
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_generated_pages_are_what_their_sources_say() -> None:
    assert [path.name for path, _ in docs.stale()] == [], "run hack/docs.py"


def test_the_gateway_file_holds_every_field_and_no_other(chart: Chart) -> None:
    alone = chart.one("ConfigMap", "pippin-gateway", "redis.enabled=false")
    file = json.loads(alone["data"]["gateway.json"])
    assert set(file) == aliases(gatewayconfig.GatewayConfig)
    config = gatewayconfig.load(json.dumps(file))
    assert config == gatewayconfig.GatewayConfig(), "the chart's defaults are the contract's"


def test_every_gateway_value_lands_in_the_file(chart: Chart) -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())["gateway"]["config"]
    assert set(values) == aliases(gatewayconfig.GatewayConfig) - FIXED
    changed = {
        name: OTHERS[name] if name in OTHERS else other(value) for name, value in values.items()
    }
    sets = [f"gateway.config.{name}={json.dumps(value)}" for name, value in changed.items()]
    sets = [text.translate(AS_HELM_WRITES) for text in sets]
    file = json.loads(chart.one("ConfigMap", "pippin-gateway", *sets)["data"]["gateway.json"])
    assert {name: file[name] for name in changed} == changed
    gatewayconfig.load(json.dumps(file))


def other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    return "debug" if isinstance(value, str) else value + 1


def aliases(model: type[gatewayconfig.GatewayConfig]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def test_every_variable_of_the_operator_is_a_setting_and_the_reverse(chart: Chart) -> None:
    (container,) = chart.one("Deployment", "pippin-operator")["spec"]["template"]["spec"][
        "containers"
    ]
    given = {item["name"] for item in container["env"]}
    known = {f"PIPPIN_OPERATOR_{name.upper()}" for name in Settings.model_fields}
    assert given - {"POD_NAMESPACE"} <= known
    # The namespace comes as POD_NAMESPACE.
    left = {f"PIPPIN_OPERATOR_{name.upper()}" for name in {*LEFT_ALONE, "namespace"}}
    assert known - given == left


def test_the_operators_variables_parse_as_its_settings(chart: Chart, monkeypatch: Any) -> None:
    (container,) = chart.one("Deployment", "pippin-operator")["spec"]["template"]["spec"][
        "containers"
    ]
    for item in container["env"]:
        monkeypatch.setenv(item["name"], item.get("value", "team-system"))
    settings = Settings()
    assert settings.namespace == "team-system"
    assert settings.server_image == f"pippin-server:{__version__}"
    assert settings.base_url == "http://pippin-gateway.pippin-system.svc/v1"
    assert settings.port == wire.OPERATOR_PORT


def test_the_charts_definitions_are_the_repositorys(chart: Chart) -> None:
    rendered = {c["metadata"]["name"]: c for c in definitions(chart)}
    assert len(rendered) == 2
    for plural in (wire.MODELDEPLOYMENTS, wire.APIKEYS):
        source = yaml.safe_load((ROOT / f"crds/{plural}.yaml").read_text())
        assert rendered[f"{plural}.{wire.GROUP}"]["spec"] == source["spec"]


def test_definitions_stay_or_go_as_told(chart: Chart) -> None:
    keep = {"helm.sh/resource-policy": "keep"}
    assert all(c["metadata"]["annotations"] == keep for c in definitions(chart))
    assert not any("annotations" in c["metadata"] for c in definitions(chart, "crds.keep=false"))
    assert definitions(chart, "crds.install=false") == []


def definitions(chart: Chart, *sets: str) -> list[Any]:
    return list(select(chart.objects(*sets), "CustomResourceDefinition"))
