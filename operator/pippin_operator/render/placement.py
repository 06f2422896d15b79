"""Where Pods may run, by accelerator: node labels, taints borne, resource, rollout strategy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pippin_contract import wire

from ..api.pods import Accelerator

_RECREATE = {"type": "Recreate"}
# A new Pod serves before the old one goes.
_ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


@dataclass(frozen=True)
class Placement:
    """One row of the table. GPUs and Macs are too full for an old and a new Pod at once."""

    selector: dict[str, str]
    tolerations: tuple[dict[str, Any], ...] = ()
    requests: dict[str, str] = field(default_factory=dict)
    limits: dict[str, str] = field(default_factory=dict)
    strategy: dict[str, Any] = field(default_factory=lambda: _RECREATE)


def place(accelerator: Accelerator) -> Placement:
    match accelerator.type:
        case "nvidia":
            return _gpu(
                accelerator,
                "nvidia.com/gpu",
                {"nvidia.com/gpu.present": "true"},
                "nvidia.com/gpu.product",
            )
        case "amd":
            # Its node labeller has no label for presence: the resource itself says it.
            return _gpu(accelerator, "amd.com/gpu", {}, "amd.com/gpu.product-name")
        case "apple":
            return _apple(accelerator)
        case "cpu":
            return Placement(selector={"kubernetes.io/os": "linux"}, strategy=_ROLLING)


def _gpu(
    accelerator: Accelerator, resource: str, present: dict[str, str], product: str
) -> Placement:
    chosen = {product: accelerator.product} if accelerator.product else {}
    count = {accelerator.resource_name or resource: str(accelerator.count)}
    return Placement(
        selector={**present, **chosen},
        tolerations=({"key": resource, "operator": "Exists", "effect": "NoSchedule"},),
        # An extended resource must be a limit; its request is the same then.
        limits=count,
        requests=count,
    )


def _apple(accelerator: Accelerator) -> Placement:
    chip = {f"{wire.GROUP}/chip": accelerator.product} if accelerator.product else {}
    return Placement(
        selector={"kubernetes.io/os": "darwin", "kubernetes.io/arch": "arm64", **chip},
        tolerations=(
            {
                "key": "kubernetes.io/os",
                "operator": "Equal",
                "value": "darwin",
                "effect": "NoSchedule",
            },
        ),
        requests={"memory": accelerator.memory} if accelerator.memory else {},
    )
