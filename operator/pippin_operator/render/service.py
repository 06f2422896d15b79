"""The Service in front of a ModelDeployment's Pods."""

from __future__ import annotations

from pippin_contract import wire

from ..api.resources import Manifest
from . import names
from .context import Model


def service(model: Model) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": names.metadata(model, model.name),
        "spec": {
            "selector": names.selector(model),
            "ports": [
                {
                    "name": wire.HTTP_PORT_NAME,
                    "port": 80,
                    "protocol": "TCP",
                    "targetPort": wire.HTTP_PORT_NAME,
                }
            ],
        },
    }
