"""Which models answer in place of one that cannot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

from pippin_edge.errors import NotReady

from ..catalog.model import Model
from .retry import Failure

#: Models that one request asks at most, beside its own.
MOST = 8


def chain(model: Model, by_ref: Mapping[str, Model], *, stays: bool = False) -> list[Model]:
    """Depth first: a model's fallbacks in their order, after each its own. No model twice, so a
    cycle ends; only such as do the same task. Who has an adapter of the name that was asked for
    answers by it. `stays`: no provider outside."""
    found: list[Model] = []
    seen = {model.ref}

    def follow(current: Model) -> None:
        for name in current.spec.fallbacks:
            other = by_ref.get(f"{current.spec.namespace}/{name}")
            if other is None or other.ref in seen or len(found) == MOST:
                continue
            seen.add(other.ref)
            leaves = stays and other.spec.external is not None
            if other.spec.task == model.spec.task and not leaves:
                found.append(_alike(other, model.spec.adapter))
                follow(other)

    follow(model)
    return found


def now(model: Model, by_ref: Mapping[str, Model]) -> Model:
    """As it is after a change in the cluster. Raises errors.NotReady."""
    current = by_ref.get(model.ref)
    return gone(model) if current is None else _alike(current, model.spec.adapter)


def _alike(model: Model, adapter: str) -> Model:
    return next((one for one in model.adapters if one.spec.adapter == adapter), model)


def helps(status: int, reason: str) -> bool:
    """Whether another model may do what this one could not: it has nobody ready, is left alone, is
    full, is late or failed, or its provider takes no more. What the client asked wrongly, it would
    ask others wrongly too, and when all of its time is spent there is none for others."""
    if reason == Failure.PROVIDER_LIMIT:
        return True
    return status >= 500 and reason != Failure.TOTAL_TIMEOUT


def gone(model: Model) -> NoReturn:
    """It was deleted while it was asked."""
    raise NotReady(f"the model '{model.spec.served_name}' is gone: try again")
