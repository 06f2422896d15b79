"""Which model a name means to a key, and what to say when it has nobody to answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pippin_contract import reach
from pippin_edge.errors import ModelNotFound, NotReady

from ..catalog.model import ApiKey, Catalog, Model, ModelSpec

#: Seconds after which it is worth asking again.
SOON, LATER = 5, 30

_WHY = {
    "Loading": ("it is loading", SOON),
    "ScaledToZero": ("it is started now that it is asked for", SOON),
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
    """The model that is served under `name`, or under `namespace/name`, to this key.

    A model that the key may not use is answered as one that does not exist.
    """
    namespace, slash, served = name.partition("/")
    if not slash:
        namespace, served = key.namespace, name
    model = catalog.by_name.get((namespace, served))
    if model is None or not may_use(key, model):
        raise ModelNotFound(
            f"the model '{name[:128]}' does not exist, or this key may not use it: "
            "GET /v1/models lists what it may use",
            param="model",
        )
    return model


def visible(catalog: Catalog, key: ApiKey) -> list[tuple[str, Model]]:
    """What the key may use, by the name to ask for: its own namespace first."""
    mine: list[tuple[str, Model]] = []
    others: list[tuple[str, Model]] = []
    for model in _each(_within_reach(catalog, key)):
        spec = model.spec
        # Of two that claim one name only the first is reachable by it.
        if (
            not may_use(key, model)
            or catalog.by_name[spec.namespace, spec.served_name] is not model
        ):
            continue
        if spec.namespace == key.namespace:
            mine.append((spec.served_name, model))
        else:
            others.append((f"{spec.namespace}/{spec.served_name}", model))
    return sorted(mine, key=_name) + sorted(others, key=_name)


def _each(models: Iterable[Model]) -> Iterator[Model]:
    for model in models:
        yield model
        yield from model.adapters


def _name(named: tuple[str, Model]) -> str:
    return named[0]


def _within_reach(catalog: Catalog, key: ApiKey) -> Iterable[Model]:
    if not key.models.leave_home:
        return catalog.by_namespace.get(key.namespace, ())
    return catalog.by_ref.values()


def may_use(key: ApiKey, model: Model) -> bool:
    """Whether one of the key's globs covers one of the model's names, and, in another namespace,
    the model is opened to the key's. A model's adapters have names of their own (`qwen:sql`), which
    globs must cover like any other: `qwen` does not, `qwen*` does. A key that stays in the cluster
    has no providers outside."""
    spec = model.spec
    if key.stays and spec.external is not None:
        return False
    if spec.namespace != key.namespace and not reach.opened(spec.opened_to, key.namespace):
        return False
    return key.models.cover(key.namespace, spec.namespace, spec.names)


def all_broken(model: Model, wait: int) -> NotReady:
    """The answer while every replica is left alone by its breaker."""
    return NotReady(
        f"every replica of the model '{model.spec.served_name}' has failed repeatedly and is left"
        f" alone for now; try again in {wait} s",
        retry_after=wait,
        code="circuit_open",
    )


#: Reasons of a model without replicas that pass by themselves, and soon.
_PASSING = frozenset({"", "Loading", "RollingOut", "NoReadyReplicas", "ScaledToZero"})


def may_come(spec: ModelSpec) -> bool:
    """Whether a model that has no replica is about to get one."""
    return not spec.suspended and spec.wanted > 0 and spec.reason in _PASSING


def nobody_ready(model: Model) -> NotReady:
    """The answer when no replica is ready: why, and when to come back."""
    spec = model.spec
    after = _WHY.get(spec.reason, ("", SOON))[1]
    if spec.suspended or spec.wanted == 0:
        after = LATER
    return NotReady(
        f"the model '{spec.served_name}' has no ready replica: {why_nobody(spec)};"
        f" try again in {after} s",
        retry_after=after,
        code="no_ready_replicas",
    )


def why_nobody(spec: ModelSpec) -> str:
    """Why a model has no replica, in words."""
    if spec.suspended:
        return "it is suspended: set spec.suspend to false"
    if spec.wanted == 0:
        return "it is scaled to zero: set spec.replicas to at least 1"
    return _WHY.get(spec.reason, ("none has become ready yet", SOON))[0]
