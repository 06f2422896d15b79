"""How much models are asked for: the operator's reason to scale them.

What is under way is known to who balances and to who holds requests back; here is kept only when
each model was last asked for, which costs a request one entry in a table.
"""

from __future__ import annotations

from collections.abc import Callable

from pippin_contract.demand import DemandReport, ModelDemand

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

    def report(self) -> DemandReport:
        models, now = self._catalog().by_ref, self._clock()
        self._last = {ref: at for ref, at in self._last.items() if ref in models}
        told = (self._of(models[ref], now) for ref in models)
        return DemandReport(models=tuple(one for one in told if one is not None))

    def _of(self, model: Model, now: float) -> ModelDemand | None:
        last, waiting = self._last.get(model.ref), self._waiting.of(model.ref)
        in_flight = sum(self._balance.load(replica) for replica in model.replicas)
        if last is None and not waiting and not in_flight:
            return None
        return ModelDemand(
            model=model.ref,
            in_flight=in_flight,
            waiting=waiting,
            asked_seconds_ago=None if last is None else max(0.0, now - last),
        )
