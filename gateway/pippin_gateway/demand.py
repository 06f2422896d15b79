"""How much models are asked for: the operator's reason to scale them.

What is under way is known to who balances and to who holds requests back; here is kept only when
each model was last asked for, which costs a request one entry in a table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .catalog.model import Catalog, Model
from .routing.balance import Balance
from .waiting import Waiting


class Demand:
    """By namespace/name of the model. Times in monotonic seconds."""

    def __init__(
        self,
        catalog: Callable[[], Catalog],
        balance: Balance,
        waiting: Waiting,
        clock: Callable[[], float],
    ) -> None:
        self._catalog = catalog
        self._balance = balance
        self._waiting = waiting
        self._clock = clock
        self._last: dict[str, float] = {}

    def asked(self, model: str, at: float) -> None:
        """A request that began then wants one of its replicas."""
        self._last[model] = at

    def report(self) -> dict[str, Any]:
        """What `pippin_contract.demand` describes. Only who was asked for can have requests."""
        models, now = self._catalog().by_ref, self._clock()
        self._last = {ref: at for ref, at in self._last.items() if ref in models}
        told = [self._of(models[ref], max(0.0, now - at)) for ref, at in self._last.items()]
        return {"version": 1, "models": told}

    def _of(self, model: Model, ago: float) -> dict[str, Any]:
        return {
            "model": model.ref,
            "in_flight": sum(map(self._balance.load, model.replicas)),
            "waiting": self._waiting.of(model.ref),
            "asked_seconds_ago": round(ago, 3),
        }
