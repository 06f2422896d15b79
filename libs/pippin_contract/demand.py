"""What a gateway tells at /admin/demand: how much each model is asked for now, by its clients.

It says how it stands and counts nothing up, so who asks may come and go, and may be several.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .serverconfig import Frozen


class ModelDemand(Frozen):
    """Of one model (namespace/name)."""

    model: str
    #: Requests at its replicas.
    in_flight: int = Field(default=0, ge=0)
    #: Requests that are held until a replica is ready.
    waiting: int = Field(default=0, ge=0)
    #: Since a request last wanted a replica, also one that was refused for want of one.
    asked_seconds_ago: float = Field(ge=0)


class DemandReport(Frozen):
    """Of one gateway: models that nobody has asked it for are left out."""

    version: Literal[1] = 1
    models: tuple[ModelDemand, ...] = ()


def load(text: bytes) -> DemandReport:
    """Raises pydantic.ValidationError."""
    return DemandReport.model_validate_json(text)
