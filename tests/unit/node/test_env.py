"""The environment of a native container, as a kubelet would make it."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from pippin_node.env import ConfigError, container_env, expand, field, resource

FACTS = {"cpu": "8", "memory": "1073741824", "hostIP": "127.0.0.1"}
POD: dict[str, Any] = {
    "metadata": {
        "name": "p",
        "namespace": "n",
        "uid": "u",
        "labels": {"b": "2", "a": 'say "hi"'},
    },
    "spec": {"nodeName": "mac", "containers": []},
}


async def lookup(kind: str, name: str) -> dict[str, Any] | None:
    known: dict[tuple[str, str], dict[str, Any]] = {
        ("configmap", "c"): {"data": {"A": "1", "not a name": "x"}},
        ("secret", "s"): {"data": {"T": base64.b64encode(b"t").decode()}},
        ("configmap", "evil"): {"data": {"LD_PRELOAD": "/x"}},
    }
    return known.get((kind, name))


async def env_of(**container: Any) -> dict[str, str]:
    return await container_env(POD, {"name": "c", **container}, FACTS, lookup)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)-$(B)", "1-2"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(UNKNOWN) $A ${A} $", "$(UNKNOWN) $A ${A} $"),
    ],
)
def test_references_to_known_variables_are_expanded(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expected


async def test_env_wins_over_env_from_and_sees_what_stands_before_it() -> None:
    values = await env_of(
        envFrom=[{"configMapRef": {"name": "c"}}, {"prefix": "S_", "secretRef": {"name": "s"}}],
        env=[{"name": "X", "value": "$(A)$(S_T)$(Y)"}, {"name": "A", "value": "own"}],
    )
    assert values == {"A": "own", "S_T": "t", "X": "1t$(Y)"}


async def test_what_is_missing_is_named_unless_it_is_optional() -> None:
    with pytest.raises(ConfigError, match='configmap "gone" not found'):
        await env_of(envFrom=[{"configMapRef": {"name": "gone"}}])
    reference = {"name": "c", "key": "Z"}
    with pytest.raises(ConfigError, match="couldn't find key Z in ConfigMap n/c"):
        await env_of(env=[{"name": "Z", "valueFrom": {"configMapKeyRef": reference}}])
    optional = {**reference, "optional": True}
    assert await env_of(env=[{"name": "Z", "valueFrom": {"configMapKeyRef": optional}}]) == {}


async def test_a_config_map_cannot_slip_in_what_loads_code() -> None:
    with pytest.raises(ConfigError, match="LD_PRELOAD"):
        await env_of(envFrom=[{"configMapRef": {"name": "evil"}}])


def test_fields_of_the_pod_are_shown() -> None:
    assert field(POD, "spec.nodeName", FACTS) == "mac"
    assert field(POD, "metadata.labels['b']", FACTS) == "2"
    assert field(POD, "metadata.labels", FACTS) == 'a="say \\"hi\\""\nb="2"'
    assert field(POD, "status.podIP", FACTS) == ""
    with pytest.raises(ConfigError, match=r"status\.phase"):
        field(POD, "status.phase", FACTS)


def test_resources_are_in_units_of_the_divisor_and_rounded_up() -> None:
    container = {"resources": {"limits": {"cpu": "1500m", "memory": "100Mi"}}}
    assert resource(POD, container, {"resource": "limits.cpu"}, FACTS) == "2"
    assert resource(POD, container, {"resource": "limits.cpu", "divisor": "1m"}, FACTS) == "1500"
    assert resource(POD, container, {"resource": "limits.memory", "divisor": "1Mi"}, FACTS) == "100"


def test_without_a_limit_the_nodes_size_is_the_limit() -> None:
    assert resource(POD, {}, {"resource": "limits.cpu"}, FACTS) == "8"
    assert resource(POD, {}, {"resource": "requests.cpu"}, FACTS) == "0"
