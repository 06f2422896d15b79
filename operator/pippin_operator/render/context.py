"""What rendering must know besides the object itself."""

from __future__ import annotations

from dataclasses import dataclass

from pippin_contract.serverconfig import PublicKey

from ..api.modeldeployment import ModelDeploymentSpec


@dataclass(frozen=True)
class RenderContext:
    """The installation: images, the gateway's public keys, which optional APIs are there."""

    server_image: str
    image_pull_policy: str
    public_keys: tuple[PublicKey, ...]
    monitoring_api: bool


@dataclass(frozen=True)
class Model:
    """A ModelDeployment, parsed: who it is and what it wants."""

    name: str
    namespace: str
    uid: str
    generation: int
    spec: ModelDeploymentSpec
    #: What the load wants, where the operator scales.
    scaled: int | None = None

    @property
    def served_name(self) -> str:
        return self.spec.model.name or self.name

    @property
    def names(self) -> tuple[str, ...]:
        """Every name by which clients may ask for it."""
        return (self.served_name, *self.spec.model.aliases)

    @property
    def replicas(self) -> int | None:
        """Pods wanted; None when somebody else scales."""
        if self.spec.suspend:
            return 0
        scaling = self.spec.autoscaling
        if scaling is not None:
            if scaling.provider != "builtin":
                return None
            return min(max(self.scaled or 0, scaling.min_replicas), scaling.max_replicas)
        return 1 if self.spec.replicas is None else self.spec.replicas
