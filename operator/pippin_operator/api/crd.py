"""From the typed kinds to CustomResourceDefinitions with structural schemas.

Pydantic's JSON Schema becomes structural by a few folds: references inlined, `X or null` folded to
X, titles dropped. Any other union is refused, so that a type that the API server could not check
never gets as far as the API server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from pippin_contract import wire

from .apikey import APIKey
from .meta import MAX_NAME
from .modeldeployment import ModelDeployment

Schema = dict[str, Any]

#: Keywords of a structural schema, in the order in which they are written.
_KEYWORDS = (
    "description",
    "type",
    "format",
    "enum",
    "default",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "maxProperties",
    "items",
    "additionalProperties",
    "properties",
    "required",
)


class NotStructural(Exception):
    """A type that has no structural schema. The message names where."""


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`; `wide` ones are shown with -o wide."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False
    description: str = ""

    def manifest(self) -> Schema:
        optional: Schema = {"description": self.description} if self.description else {}
        if self.wide:
            optional["priority"] = 1
        return {"name": self.name, "type": self.type, "jsonPath": self.path, **optional}


@dataclass(frozen=True)
class Kind:
    """All that makes a CRD out of a type."""

    type: type[BaseModel]
    plural: str
    singular: str
    short: str
    columns: tuple[Column, ...]
    name_schema: Mapping[str, Any]
    scale: Mapping[str, str] | None = None


_READY = '.status.conditions[?(@.type=="Ready")]'
_AGE = Column("Age", ".metadata.creationTimestamp", "date")

KINDS = (
    Kind(
        type=ModelDeployment,
        plural=wire.MODELDEPLOYMENTS,
        singular="modeldeployment",
        short="mdep",
        columns=(
            Column("Ready", f"{_READY}.status"),
            Column("Reason", f"{_READY}.reason"),
            Column("Engine", ".status.engine"),
            Column("Accelerator", ".spec.accelerator.type"),
            Column("Replicas", ".status.ready", description="Pods that serve / Pods wanted."),
            Column("URL", ".status.url"),
            _AGE,
            Column("Model", ".spec.model.uri", wide=True),
            Column("Nodes", ".status.nodes", wide=True),
            Column("Served-Name", ".status.servedName", wide=True),
        ),
        # A Service of the same name is made, and labels hold the name.
        name_schema={
            "type": "string",
            "maxLength": MAX_NAME,
            "pattern": r"^[a-z]([-a-z0-9]*[a-z0-9])?$",
        },
        scale={
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
    ),
    Kind(
        type=APIKey,
        plural=wire.APIKEYS,
        singular="apikey",
        short="ak",
        columns=(
            Column("Phase", ".status.phase"),
            Column("Key-ID", ".status.keyId"),
            Column("Models", ".spec.models"),
            Column("RPM", ".spec.limits.rpm", "integer"),
            Column("TPM", ".spec.limits.tpm", "integer"),
            Column("Last-Used", ".status.lastUsedAt", "date"),
            # Not a date: kubectl shows the time that has passed since a date.
            Column("Expires", ".spec.expiresAt"),
            _AGE,
            Column("Owner", ".spec.owner", wide=True),
            Column("Requests", ".status.usage.requests", "integer", wide=True),
            Column("Tokens-Today", ".status.usage.tokensToday", "integer", wide=True),
            Column("Priority", ".spec.priority", wide=True),
        ),
        name_schema={"type": "string", "maxLength": MAX_NAME},
    ),
)


def crd(kind: Kind) -> Schema:
    """The CustomResourceDefinition of a kind."""
    schema = _object_schema(kind)
    subresources: Schema = {"status": {}}
    if kind.scale is not None:
        subresources["scale"] = dict(kind.scale)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{wire.GROUP}"},
        "spec": {
            "group": wire.GROUP,
            "names": {
                "kind": kind.type.__name__,
                "listKind": f"{kind.type.__name__}List",
                "plural": kind.plural,
                "singular": kind.singular,
                "shortNames": [kind.short],
                "categories": ["pippin"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": wire.VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": subresources,
                    "additionalPrinterColumns": [column.manifest() for column in kind.columns],
                }
            ],
        },
    }


def _object_schema(kind: Kind) -> Schema:
    whole = structural(kind.type)
    root: Schema = {
        "description": whole["description"],
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object", "properties": {"name": dict(kind.name_schema)}},
            **whole["properties"],
        },
        "required": ["spec"],
    }
    if "fallbacks" in whole["properties"]["spec"]["properties"]:
        # Only the root sees the object's own name.
        root["x-kubernetes-validations"] = [
            {
                "rule": "!has(self.spec.fallbacks) || !(self.metadata.name in self.spec.fallbacks)",
                "message": "a ModelDeployment cannot be its own fallback",
                "reason": "FieldValueInvalid",
                "fieldPath": ".spec.fallbacks",
            }
        ]
    return root


def structural(model: type[BaseModel]) -> Schema:
    """The structural schema of a model. Raises NotStructural."""
    raw = model.model_json_schema(by_alias=True)
    return _fold(raw, raw.get("$defs", {}), model.__name__)


def _fold(raw: Schema, defs: Mapping[str, Schema], where: str) -> Schema:
    raw = _without_null(_resolved(raw, defs), defs, where)
    folded: Schema = {key: value for key, value in raw.items() if key.startswith("x-kubernetes-")}
    for keyword in _KEYWORDS:
        if keyword in raw:
            value = _folded_keyword(keyword, raw, defs, where)
            if value is not None:
                folded[keyword] = value
    ordered = [key for key in _KEYWORDS if key in folded]
    ordered += [key for key in folded if key not in _KEYWORDS]
    return {key: folded[key] for key in ordered}


def _folded_keyword(keyword: str, raw: Schema, defs: Mapping[str, Schema], where: str) -> Any:
    value = raw[keyword]
    match keyword:
        case "properties":
            return {name: _fold(sub, defs, f"{where}.{name}") for name, sub in value.items()}
        case "items":
            return _fold(value, defs, f"{where}[]")
        case "additionalProperties":
            return _fold(value, defs, f"{where}{{}}") if isinstance(value, dict) else None
        case "default":
            return _default(raw)
        case "description":
            return " ".join(value.split())
        case _:
            return value


def _default(raw: Schema) -> Any:
    """Without what is empty. An object's default is whole: rules are tried on it as it stands."""
    value = raw["default"]
    if isinstance(value, dict):
        full = {key: inner for key, inner in value.items() if inner not in (None, [], {})}
        return full or None
    return None if value in ([], None) else value


def _resolved(raw: Schema, defs: Mapping[str, Schema]) -> Schema:
    if "$ref" not in raw:
        return raw
    target = defs[raw["$ref"].rsplit("/", 1)[-1]]
    # What is said beside the reference (description, default) is about this very field.
    return {**target, **{key: value for key, value in raw.items() if key != "$ref"}}


def _without_null(raw: Schema, defs: Mapping[str, Schema], where: str) -> Schema:
    options = raw.get("anyOf")
    if options is None:
        return raw
    real = [option for option in options if option != {"type": "null"}]
    if len(real) != 1 or raw.get("default") is not None:
        raise NotStructural(f"{where}: only `X or None` with default None has a structural schema")
    outer = {key: value for key, value in raw.items() if key not in ("anyOf", "default")}
    return {**_resolved(real[0], defs), **outer}
