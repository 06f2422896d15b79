"""ModelDeployments as the operator's pure parts take them."""

from __future__ import annotations

from typing import Any

from pippin_contract.serverconfig import PublicKey
from pippin_operator.api.modeldeployment import ModelDeploymentSpec
from pippin_operator.render.context import Model, RenderContext
from support.manifests import merged

CONTEXT = RenderContext(
    server_image="registry.example/pippin-server:0.1.0",
    image_pull_policy="IfNotPresent",
    public_keys=(PublicKey(kid="a" * 16, pem="PEM A"), PublicKey(kid="b" * 16, pem="PEM B")),
    monitoring_api=True,
)


def a_spec(**spec: Any) -> ModelDeploymentSpec:
    """An mlx model on the CPU; keywords are merged into the spec."""
    base = {"model": {"uri": "hf://org/model"}}
    return ModelDeploymentSpec.model_validate(merged(base, spec))


def a_model(name: str = "qwen", **spec: Any) -> Model:
    return Model(name=name, namespace="team-a", uid="uid-1", generation=3, spec=a_spec(**spec))
