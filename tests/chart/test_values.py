"""Values: presets that lint, a schema that refuses what is wrong and names it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from support.chart import CHART, EVERYTHING, PRESETS, Chart, HelmRefused, preset_args

SCHEMA = json.loads((CHART / "values.schema.json").read_text())


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_passes_the_strict_linter(chart: Chart, preset: str) -> None:
    assert "0 chart(s) failed" in chart.run("lint", "--strict", str(CHART), *preset_args(preset))


def test_the_linter_passes_with_every_switch_on(chart: Chart) -> None:
    sets = [item for text in EVERYTHING for item in ("--set", text)]
    assert "0 chart(s) failed" in chart.run("lint", "--strict", str(CHART), *sets)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ("gateway.replica=3", "'replica'"),
        ("gateway.replicas=0", "/gateway/replicas"),
        ("gateway.replicas=two", "/gateway/replicas"),
        ("gateway.hostPort=70000", "/gateway/hostPort"),
        ("gateway.publicUrl=llm.example.com", "/gateway/publicUrl"),
        ("gateway.config.maxBodyBytes=8Mi", "/gateway/config/maxBodyBytes"),
        ("gateway.config.totalTimeoutSeconds=0", "/gateway/config/totalTimeoutSeconds"),
        ("gateway.config.logLevel=verbose", "/gateway/config/logLevel"),
        ("gateway.config.port=9000", "'port'"),
        ("gateway.service.type=ExternalName", "/gateway/service/type"),
        ("gateway.resources.requests.memory=lots", "/gateway/resources/requests/memory"),
        ("gateway.tolerations[0].effect=Never", "/gateway/tolerations/0/effect"),
        ("operator.resources.request.cpu=1", "'request'"),
        ("operator.extraEnv[0].value=x", "/operator/extraEnv/0"),
        ("operator.replicas=2", "'replicas'"),
        ("images.operator.tag=latest", "/images/operator/tag"),
        ("images.gateway.digest=abc", "/images/gateway/digest"),
        ("images.pullPolicy=Sometimes", "/images/pullPolicy"),
        ("images.server.repository=Pippin Server", "/images/server/repository"),
        ("podSecurity.runAsUser=0", "/podSecurity/runAsUser"),
        ("crds.install=yes", "/crds/install"),
        ("ingress.enabled=true", "/ingress/host"),
        ("ingress.paths[0]=v1", "/ingress/paths/0"),
        ("networkPolicy.apiServerPorts[0]=0", "/networkPolicy/apiServerPorts/0"),
        ("networkPolicy.gatewayFrom[0].namespace=web", "'namespace'"),
        ("monitoring.interval=often", "/monitoring/interval"),
        ("rbac.create=true", "'create'"),
        ("postgres.enabled=true", "'postgres'"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(chart: Chart, wrong: str, field: str) -> None:
    with pytest.raises(HelmRefused, match="schema") as refused:
        chart.template(wrong)
    assert field in str(refused.value)


def test_the_schema_closes_and_describes_every_section() -> None:
    for path, schema in properties(SCHEMA):
        assert schema.get("description"), f"{path} has no description"
        if "properties" in schema:
            assert schema["additionalProperties"] is False, f"{path} lets anything in"


def test_the_schema_and_the_values_name_the_same_things() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    known = {path for path, _ in properties(SCHEMA) if not path.startswith("definitions.")}
    assert known - {"global"} == set(paths(values)) & known, "in the schema, not in values.yaml"
    sections = {path.rpartition(".")[0] for path in known}
    unknown = {p for p in paths(values) if p.rpartition(".")[0] in sections} - known
    assert not unknown, "in values.yaml, not in the schema"


@pytest.mark.parametrize("preset", PRESETS[1:])
def test_a_preset_changes_only_what_differs_from_the_defaults(preset: str) -> None:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    changes = yaml.safe_load((CHART / f"values-{preset}.yaml").read_text())
    same = [path for path, value in leaves(changes) if lookup(defaults, path) == value]
    assert not same, "says what values.yaml says already"


def properties(schema: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, inner in schema.get("properties", {}).items():
        yield f"{prefix}{name}", inner
        yield from properties(inner, f"{prefix}{name}.")
    if not prefix:
        for name, definition in schema["definitions"].items():
            yield from properties(definition, f"definitions.{name}.")
            yield from properties(definition.get("items", {}), f"definitions.{name}[].")


def paths(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from paths(value, f"{prefix}{name}.")


def leaves(values: dict[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[Any, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, (*prefix, name))
        else:
            yield (*prefix, name), value


def lookup(values: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        values = values.get(part, ...) if isinstance(values, dict) else ...
    return values
