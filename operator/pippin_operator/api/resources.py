"""The kinds that the operator reads and writes, and references to objects of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pippin_contract import wire

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Resource:
    """A kind as the API server names it."""

    api_version: str
    kind: str
    plural: str

    def path(self, namespace: str | None = None, name: str = "", sub: str = "") -> str:
        """`/apis/apps/v1/namespaces/NS/deployments/NAME/status`."""
        root = "api" if "/" not in self.api_version else "apis"
        parts = ["", root, self.api_version]
        if namespace is not None:
            parts += ["namespaces", namespace]
        return "/".join([*parts, self.plural, *filter(None, (name, sub))])


@dataclass(frozen=True)
class Ref:
    """One object of ours, or of our children."""

    plural: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.plural}/{self.namespace}/{self.name}"

    @classmethod
    def of(cls, resource: Resource, body: Mapping[str, Any]) -> Ref:
        metadata = body["metadata"]
        return cls(resource.plural, metadata["namespace"], metadata["name"])


MODELDEPLOYMENT = Resource(wire.API_VERSION, "ModelDeployment", wire.MODELDEPLOYMENTS)
APIKEY = Resource(wire.API_VERSION, "APIKey", wire.APIKEYS)
DEPLOYMENT = Resource("apps/v1", "Deployment", "deployments")
SERVICE = Resource("v1", "Service", "services")
CONFIGMAP = Resource("v1", "ConfigMap", "configmaps")
POD = Resource("v1", "Pod", "pods")
SECRET = Resource("v1", "Secret", "secrets")
CLAIM = Resource("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
EVENT = Resource("events.k8s.io/v1", "Event", "events")
SERVICEMONITOR = Resource("monitoring.coreos.com/v1", "ServiceMonitor", "servicemonitors")

#: Children of a ModelDeployment that are watched; the ServiceMonitor's API may be absent.
WATCHED = (DEPLOYMENT, SERVICE, CONFIGMAP, POD)
#: Children that a ModelDeployment owns directly, by kind.
CHILDREN = {kind.kind: kind for kind in (DEPLOYMENT, SERVICE, CONFIGMAP, SERVICEMONITOR)}
