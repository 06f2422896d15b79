"""Which model a name means to a key, and what to say when it has nobody to answer."""

from __future__ import annotations

from pippin_edge.errors import ModelNotFound, NotReady

from ..catalog.model import ApiKey, Catalog, Model

#: Seconds after which it is worth asking again.
SOON, LATER = 5, 30

_WHY = {
    "Loading": ("it is loading", SOON),
    "RollingOut": ("it is being rolled out", SOON),
    "ImagePullFailed": ("its image cannot be pulled", LATER),
    "CrashLooping": ("its server keeps crashing", LATER),
    "OutOfMemory": ("its server ran out of memory", LATER),
    "NoMatchingNode": ("no node can run it", LATER),
    "InsufficientGPU": ("there is no free GPU for it", LATER),
    "InsufficientMemory": ("there is not enough memory for it", LATER),
    "NodeLost": ("its node is lost", LATER),
    "ModelCorrupted": ("its weights are damaged", LATER),
    "ModelSourceNotFound": ("its weights were not found", LATER),
    "ModelSourceUnauthorized": ("its weights may not be fetched", LATER),
    "ModelSourceUnreachable": ("its weights cannot be fetched now", LATER),
}


def resolve(catalog: Catalog, key: ApiKey, name: str) -> Model:
    """The model of the key's namespace that is served under `name`.

    A model that the key may not use is answered as one that does not exist.
    """
    model = catalog.by_name.get((key.namespace, name))
    if model is None or not may_use(key, model):
        raise ModelNotFound(
            f"the model '{name[:128]}' does not exist, or this key may not use it: "
            "GET /v1/models lists what it may use",
            param="model",
        )
    return model


def visible(catalog: Catalog, key: ApiKey) -> list[Model]:
    """What the key may use, by served name."""
    found = [m for m in catalog.by_namespace.get(key.namespace, ()) if may_use(key, m)]
    # Of two that claim one name only the first is reachable by it.
    mine = [m for m in found if catalog.by_name[key.namespace, m.spec.served_name] is m]
    return sorted(mine, key=lambda model: model.spec.served_name)


def may_use(key: ApiKey, model: Model) -> bool:
    """Whether one of the key's globs covers one of the model's names."""
    return any(map(key.models.match, model.spec.names))


def all_broken(model: Model, wait: int) -> NotReady:
    """The answer while every replica is left alone by its breaker."""
    return NotReady(
        f"every replica of the model '{model.spec.served_name}' has failed repeatedly and is left"
        f" alone for now; try again in {wait} s",
        retry_after=wait,
        code="circuit_open",
    )


def nobody_ready(model: Model) -> NotReady:
    """The answer when no replica is ready: why, and when to come back."""
    spec = model.spec
    if spec.suspended:
        why, after = "it is suspended: set spec.suspend to false", LATER
    elif spec.wanted == 0:
        why, after = "it is scaled to zero: set spec.replicas to at least 1", LATER
    else:
        why, after = _WHY.get(spec.reason, ("none has become ready yet", SOON))
    return NotReady(
        f"the model '{spec.served_name}' has no ready replica: {why}; try again in {after} s",
        retry_after=after,
        code="no_ready_replicas",
    )
