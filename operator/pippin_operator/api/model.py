"""What a ModelDeployment serves: the model, where its weights lie, and its adapters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .meta import KubeModel, Name, ObjectName, ServedName, Text, Word, rule, rules, set_of

Task = Literal["chat", "completion", "embedding", "transcription", "image"]

_URI = r"^(hf|pvc|s3|oci|https|file)://.+"
_URI_HELP = "must start with hf://, pvc://, s3://, oci://, https:// or file:// and say what follows"


class Credentials(KubeModel):
    """A Secret of the object's own namespace, for the source of the weights."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: Word | None = Field(
        default=None,
        description=(
            "Key inside the Secret. Default: `token` for hf:// and https://; for s3:// and oci://"
            " every key, under the names that the source knows."
        ),
    )


class Adapter(KubeModel):
    """A LoRA adapter, served as <name>:<adapter>."""

    name: ServedName = Field(description="Name of the adapter.")
    uri: str = Field(
        description=(
            "Where the adapter lies, as model.uri: adapter_config.json and the weights beside it,"
            " as PEFT writes them (adapter_model.safetensors), or for mlx also as mlx_lm does."
        ),
        max_length=1024,
        json_schema_extra=rules(rule(f"self.matches('{_URI}')", f"uri {_URI_HELP}")),
    )
    credentials_secret_ref: Credentials | None = Field(
        default=None,
        description="Credential for its source. Default: the model's, where both are hf://.",
    )


class Model(KubeModel):
    """Which model, and what it is called."""

    uri: str | None = Field(
        default=None,
        max_length=1024,
        description=(
            "Where the weights lie: hf://org/name@revision (Hugging Face), pvc://claim/path (a"
            " volume of this namespace), s3://bucket/path, oci://registry/name:tag,"
            " https://host/model.tar.gz#sha256=digest (an archive), or file:///directory (a"
            " directory of the node, if the node allows it). Needed unless the engine is echo or"
            " external."
        ),
        json_schema_extra=rules(rule(f"self.matches('{_URI}')", f"uri {_URI_HELP}")),
    )
    name: ServedName | None = Field(
        default=None,
        description="Name by which clients ask for the model. Default: metadata.name.",
    )
    aliases: tuple[ServedName, ...] = set_of("Further names that resolve to this model.", 32)
    task: Task = Field(
        default="chat",
        description="What the model does. Cannot be changed later.",
        json_schema_extra=rules(
            rule("self == oldSelf", "task cannot be changed: make a new ModelDeployment")
        ),
    )
    context_length: int | None = Field(
        default=None,
        ge=1,
        le=100_000_000,
        description="Most tokens of a prompt and its answer. Default: what the model allows.",
    )
    family: Annotated[str, Field(max_length=63)] | None = Field(
        default=None, description="Family shown by /v1/models. Default: taken from the uri."
    )
    tags: tuple[Name, ...] = set_of("Labels shown by /v1/models.", 32)
    description: Text | None = Field(default=None, description="Words shown by /v1/models.")
    credentials_secret_ref: Credentials | None = Field(
        default=None, description="Credential for the source of the weights."
    )
    adapters: tuple[Adapter, ...] = Field(
        default=(),
        max_length=32,
        description=(
            "LoRA adapters of a model for chat or completion, each served as <name>:<adapter>."
        ),
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
        },
    )
