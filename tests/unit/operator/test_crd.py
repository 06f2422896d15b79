"""Types become structural schemas, or are refused."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import Field

from pippin_operator.api.apikey import APIKey
from pippin_operator.api.crd import KINDS, NotStructural, crd, structural
from pippin_operator.api.meta import KubeModel
from pippin_operator.api.modeldeployment import ModelDeployment

FORBIDDEN = {"anyOf", "oneOf", "allOf", "not", "$ref", "$defs", "title", "const", "examples"}


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    for keyword in ("items", "additionalProperties"):
        if keyword in schema:
            yield from nodes(schema[keyword], f"{path}[]")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.short)
def test_every_node_of_the_schema_is_structural(kind):
    for path, node in nodes(structural(kind.type)):
        assert not FORBIDDEN & node.keys(), path
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.short)
def test_every_field_tells_what_it_is_for(kind):
    for path, node in nodes(structural(kind.type)):
        for name, field in node.get("properties", {}).items():
            assert field.get("description", "").endswith((".", ". ")), f"{path}.{name}"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.short)
def test_every_text_and_list_of_a_spec_is_bounded(kind):
    """The API server refuses rules whose cost it cannot bound, and so may users' mistakes be."""
    for path, node in nodes(structural(kind.type)["properties"]["spec"]):
        if node.get("type") == "array":
            assert "maxItems" in node, path


def test_optional_fields_have_no_null_and_no_default():
    replicas = structural(ModelDeployment)["properties"]["spec"]["properties"]["replicas"]
    assert replicas["type"] == "integer"
    assert "default" not in replicas
    assert "nullable" not in replicas


def test_conditions_merge_by_type():
    for kind in (ModelDeployment, APIKey):
        conditions = structural(kind)["properties"]["status"]["properties"]["conditions"]
        assert conditions["x-kubernetes-list-type"] == "map"
        assert conditions["x-kubernetes-list-map-keys"] == ["type"]


def test_a_union_has_no_structural_schema():
    class Odd(KubeModel):
        either: int | bool = Field(description="Either.")

    with pytest.raises(NotStructural, match=r"Odd\.either"):
        structural(Odd)


def test_names_and_subresources():
    models, keys = (crd(kind)["spec"] for kind in KINDS)
    assert models["names"]["shortNames"] == ["mdep"]
    assert keys["names"]["shortNames"] == ["ak"]
    assert models["names"]["categories"] == keys["names"]["categories"] == ["pippin"]
    assert set(models["versions"][0]["subresources"]) == {"status", "scale"}
    assert set(keys["versions"][0]["subresources"]) == {"status"}
