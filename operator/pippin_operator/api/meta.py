"""What both kinds share: the base model, scalars with their schema, conditions, CEL rules.

A type here is the schema: every constraint written on a field ends up in the CRD.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

from pippin_contract import units

#: Longest name of an object of ours: room for suffixes in children's names.
MAX_NAME = 40

#: camelCase in YAML; frozen; unknown fields are ignored, since a rolled-back operator meets them.
KUBE = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")


class KubeModel(BaseModel):
    """Base of everything that a user writes or reads in YAML."""

    model_config = KUBE


def rules(*validations: dict[str, str]) -> dict[str, Any]:
    """A model's CEL validations, for `json_schema_extra`."""
    return {"x-kubernetes-validations": list(validations)}


def rule(cel: str, message: str, field: str = "") -> dict[str, str]:
    """One CEL validation; `field` is a path below the model, such as `.minReplicas`."""
    validation = {"rule": cel, "message": message, "reason": "FieldValueInvalid"}
    return {**validation, "fieldPath": field} if field else validation


def opaque(description: str) -> Any:
    """A field whose inside is Kubernetes' own and is passed on as it is."""
    return Field(
        default=None,
        description=description,
        json_schema_extra={"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    )


Duration = Annotated[str, Field(pattern=units.DURATION_PATTERN, max_length=32)]

#: Text inside, string or number in YAML, as everywhere in Kubernetes.
Quantity = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if isinstance(value, int | float) else value),
    Field(pattern=units.QUANTITY_PATTERN, max_length=32),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "pattern": units.QUANTITY_PATTERN,
            "maxLength": 32,
        }
    ),
]

ObjectName = Annotated[
    str,
    Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", min_length=1, max_length=253),
]

#: A name by which clients ask for a model. No slash: it separates namespace and name.
ServedName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]*$", min_length=1, max_length=128)
]

Text = Annotated[str, Field(max_length=1024)]
Word = Annotated[str, Field(min_length=1, max_length=253)]
Name = Annotated[str, Field(min_length=1, max_length=63)]


class SecretKey(KubeModel):
    """One key of a Secret in the object's own namespace."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: Word = Field(description="Key inside the Secret.")


class Condition(KubeModel):
    """As metav1.Condition."""

    type: str = Field(description="What is judged.", max_length=64)
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it is so.")
    reason: str = Field(description="One word, in PascalCase.", max_length=128)
    message: str = Field(default="", description="What happened and what to do.", max_length=2048)
    observed_generation: int | None = Field(
        default=None, description="Generation of the spec that was judged."
    )
    last_transition_time: str = Field(
        description="When the status last changed.",
        json_schema_extra={"format": "date-time"},
    )


def conditions() -> Any:
    """The status field `conditions`, a map by type for server-side apply."""
    return Field(
        default=(),
        description="What is judged of this object, by type.",
        max_length=32,
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
        },
    )


def set_of(description: str, most: int) -> Any:
    """A list field whose items are unique."""
    return Field(
        default=(),
        description=description,
        max_length=most,
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
