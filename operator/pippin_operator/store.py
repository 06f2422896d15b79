"""What the API server last told: objects of our kinds and their labelled children, in memory.

Filled by a full reading (`replace`), kept up by watch events and by the answers to our own writes.
Newer always wins, so an event that arrives late cannot undo what a write already answered.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pippin_contract import adapters, wire

from .api.resources import APIKEY, MODELDEPLOYMENT, POD, Manifest, Ref, Resource

#: Selects the children of ModelDeployments.
CHILD_SELECTOR = wire.SERVER_POD_SELECTOR

_OURS = {MODELDEPLOYMENT.plural, APIKEY.plural}
_POD_SPEC = ("nodeName",)
_POD_STATUS = (
    "phase",
    "reason",
    "message",
    "conditions",
    "containerStatuses",
    "initContainerStatuses",
)


def owner_of(body: Mapping[str, Any]) -> Ref | None:
    """The ModelDeployment that a child belongs to, by its labels."""
    metadata = body["metadata"]
    labels = metadata.get("labels") or {}
    if labels.get(wire.LABEL_MANAGED_BY) != wire.MANAGER or wire.LABEL_INSTANCE not in labels:
        return None
    name = labels[wire.LABEL_INSTANCE]
    return Ref(MODELDEPLOYMENT.plural, metadata.get("namespace", ""), name)


class Store:
    """Objects by kind, namespace and name; children also by their owner."""

    def __init__(self) -> None:
        self._objects: dict[Ref, Manifest] = {}
        self._children: dict[Ref, set[Ref]] = defaultdict(set)
        self._gone: dict[Ref, int] = {}
        self._names = _Names()
        self._with_fallbacks: dict[str, set[Ref]] = defaultdict(set)

    def get(self, ref: Ref) -> Manifest | None:
        return self._objects.get(ref)

    def refs(self, plural: str) -> Iterator[Ref]:
        return iter([ref for ref in self._objects if ref.plural == plural])

    def children(self, owner: Ref, plural: str) -> list[Manifest]:
        """Children of that kind, by name."""
        refs = sorted(
            (ref for ref in self._children.get(owner, ()) if ref.plural == plural),
            key=lambda ref: ref.name,
        )
        return [self._objects[ref] for ref in refs]

    def taken(self, ref: Ref) -> tuple[str, str] | None:
        """A served name that an older ModelDeployment of the namespace has: (name, whose)."""
        return self._names.taken(ref)

    def rivals(self, ref: Ref) -> set[Ref]:
        """Others that claim one of its names."""
        return self._names.rivals(ref)

    def fallbacks(self, ref: Ref) -> tuple[str, tuple[str, ...]] | None:
        """A ModelDeployment's task, and those that it names to answer instead; None: no such."""
        body = self._objects.get(ref)
        return None if body is None else _fallbacks(body)

    def with_fallbacks(self, namespace: str) -> set[Ref]:
        """ModelDeployments of the namespace that name others."""
        return set(self._with_fallbacks.get(namespace, ()))

    def put(self, resource: Resource, body: Mapping[str, Any]) -> bool:
        """Remember it; False when nothing that matters here has changed."""
        ref = Ref.of(resource, body)
        version = _version(body)
        known = self._objects.get(ref)
        if version <= self._gone.get(ref, -1):
            return False
        if known is not None and version < _version(known):
            return False
        fresh = _slim(resource, body)
        self._objects[ref] = fresh
        self._link(ref, fresh)
        return known is None or not _same(resource, known, fresh)

    def remove(self, resource: Resource, body: Mapping[str, Any]) -> None:
        """Forget it, unless what is known is newer (made again under its name)."""
        ref = Ref.of(resource, body)
        known = self._objects.get(ref)
        if known is not None and _version(known) > _version(body):
            return
        self._gone[ref] = _version(body)
        self._forget(ref)

    def replace(self, resource: Resource, items: Iterable[Mapping[str, Any]], version: int) -> None:
        """Take over a full list that was read at `version`; what is newer stays."""
        seen = set()
        for item in items:
            seen.add(Ref.of(resource, item))
            self.put(resource, item)
        for ref in self.refs(resource.plural):
            if ref not in seen and _version(self._objects[ref]) <= version:
                self._forget(ref)
        # A deletion older than this list can no longer be undone by a late answer.
        self._gone = {
            ref: at
            for ref, at in self._gone.items()
            if ref.plural != resource.plural or at > version
        }

    def _link(self, ref: Ref, body: Manifest) -> None:
        if ref.plural == MODELDEPLOYMENT.plural:
            self._names.put(ref, body)
            naming = self._with_fallbacks[ref.namespace]
            (naming.add if _fallbacks(body)[1] else naming.discard)(ref)
        elif ref.plural not in _OURS and (owner := owner_of(body)) is not None:
            self._children[owner].add(ref)

    def _forget(self, ref: Ref) -> None:
        body = self._objects.pop(ref, None)
        if body is None:
            return
        if ref.plural == MODELDEPLOYMENT.plural:
            self._names.remove(ref)
            self._with_fallbacks[ref.namespace].discard(ref)
        owner = owner_of(body)
        if owner is not None and owner in self._children:
            self._children[owner].discard(ref)
            if not self._children[owner]:
                del self._children[owner]


class _Names:
    """Who claims which served name in which namespace. The oldest claim holds."""

    def __init__(self) -> None:
        self._claims: dict[tuple[str, str], dict[Ref, tuple[str, str]]] = defaultdict(dict)
        self._names_of: dict[Ref, tuple[str, ...]] = {}

    def put(self, ref: Ref, body: Manifest) -> None:
        self.remove(ref)
        model = body.get("spec", {}).get("model") or {}
        names = adapters.every_name(model, ref.name)
        age = (body["metadata"].get("creationTimestamp", ""), ref.name)
        self._names_of[ref] = names
        for name in names:
            self._claims[ref.namespace, name][ref] = age

    def remove(self, ref: Ref) -> None:
        for name in self._names_of.pop(ref, ()):
            claims = self._claims[ref.namespace, name]
            claims.pop(ref, None)
            if not claims:
                del self._claims[ref.namespace, name]

    def taken(self, ref: Ref) -> tuple[str, str] | None:
        for name in self._names_of.get(ref, ()):
            claims = self._claims[ref.namespace, name]
            holder = min(claims, key=lambda other: claims[other])
            if holder != ref:
                return name, holder.name
        return None

    def rivals(self, ref: Ref) -> set[Ref]:
        names = self._names_of.get(ref, ())
        return {
            other for name in names for other in self._claims[ref.namespace, name] if other != ref
        }


def _fallbacks(body: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    spec = body.get("spec") or {}
    task = (spec.get("model") or {}).get("task") or "chat"
    return task, tuple(spec.get("fallbacks") or ())


def _version(body: Mapping[str, Any]) -> int:
    """Resource versions of one kind are comparable numbers (guaranteed since Kubernetes 1.35)."""
    return int(body["metadata"].get("resourceVersion") or 0)


def _slim(resource: Resource, body: Mapping[str, Any]) -> Manifest:
    """Without what is never looked at here: most of an object's memory."""
    metadata = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
    slim = {**body, "apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}
    if resource.plural == POD.plural:
        spec, status = body.get("spec") or {}, body.get("status") or {}
        slim["spec"] = {key: spec[key] for key in _POD_SPEC if key in spec}
        slim["status"] = {key: status[key] for key in _POD_STATUS if key in status}
    return slim


def _same(resource: Resource, known: Manifest, fresh: Manifest) -> bool:
    """Nothing but the version has changed; of our own kinds, nothing but the status."""
    ignored = ("metadata", "status") if resource.plural in _OURS else ("metadata",)
    one = {key: value for key, value in known.items() if key not in ignored}
    other = {key: value for key, value in fresh.items() if key not in ignored}
    return one == other and _meta(known) == _meta(fresh)


def _meta(body: Manifest) -> dict[str, Any]:
    return {key: value for key, value in body["metadata"].items() if key != "resourceVersion"}
