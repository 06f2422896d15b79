"""What a gateway reads of a real API server, put there by hand: no operator, no nodes."""

from __future__ import annotations

from typing import Any

from cluster.controlplane import ControlPlane

from pippin_contract import wire
from pippin_contract.apikeys import MintedKey
from support.apiserver import new_namespace
from support.gateway import key_object, model_object, pod_object

CUSTOM = f"/apis/{wire.GROUP}/{wire.VERSION}/namespaces"


class World:
    """One namespace with a key, a model, and Pods whose status the test writes by hand."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.namespace = new_namespace(plane)
        core = f"/api/v1/namespaces/{self.namespace}"
        # Without controllers nobody makes the account that Pods are admitted with.
        plane.api.ensure(f"{core}/serviceaccounts", {"metadata": {"name": "default"}})
        self.pods = f"{core}/pods"
        self.keys = f"{CUSTOM}/{self.namespace}/{wire.APIKEYS}"
        self.models = f"{CUSTOM}/{self.namespace}/{wire.MODELDEPLOYMENTS}"

    def put(self, collection: str, raw: dict[str, Any]) -> dict[str, Any]:
        """Create or replace an object with its status; what the server then holds."""
        raw["metadata"] |= {"namespace": self.namespace}
        raw["metadata"].pop("uid", None)
        path = f"{collection}/{raw['metadata']['name']}"
        if not self.plane.api.ok(path):
            self.plane.api.create(collection, raw)
        held = self.plane.api.get(path)
        if collection != self.pods:
            held = self.plane.api.put(path, held | {"spec": raw["spec"]})
        found: dict[str, Any] = self.plane.api.put(f"{path}/status", held | _status(raw))
        return found

    def key(self, minted: MintedKey, name: str = "app", **spec: Any) -> dict[str, Any]:
        return self.put(self.keys, key_object(minted, name, **spec))

    def model(self, name: str = "qwen", **spec: Any) -> dict[str, Any]:
        whole = {"engine": {"type": "echo"}, "accelerator": {"type": "cpu"}, **spec}
        return self.put(self.models, model_object(name, **whole))

    def pod(self, name: str, port: int, **more: Any) -> dict[str, Any]:
        raw = pod_object(name, port, **more)
        raw["spec"] = {"containers": [{"name": "server", "image": "pippin-server:0.1.0-mlx"}]}
        return self.put(self.pods, raw)

    def delete(self, collection: str, name: str) -> None:
        self.plane.api.delete(f"{collection}/{name}")


def _status(raw: dict[str, Any]) -> dict[str, Any]:
    status = raw.get("status") or {}
    now = "2026-01-01T00:00:00Z"
    for condition in status.get("conditions", ()):
        condition.setdefault("lastTransitionTime", now)
        condition.setdefault("reason", "ByHand")
    return {"status": status}
