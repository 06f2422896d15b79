"""Where the process stands between its start and its end; what the probes tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

from .admission import Admission
from .engines.base import Engine, Loaded, LoadFailed, Transfer
from .resilience.redact import redact

Stage = Literal["loading", "ready", "failed"]


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far the model is. Percent of the step at hand, since not every step knows the whole."""

    percent: int = 0
    message: str = "starting"
    transfer: Transfer | None = None

    def payload(self) -> dict[str, object]:
        """Of /health."""
        found: dict[str, object] = {"percent": self.percent, "message": self.message}
        return found if self.transfer is None else found | asdict(self.transfer)


class Lifecycle:
    """Written by the loader and the drain, read by the probes."""

    def __init__(
        self,
        *,
        engine: Engine,
        admission: Admission,
        stall_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self.engine = engine
        self.admission = admission
        self.stage: Stage = "loading"
        self.progress = LoadProgress()
        self.loaded: Loaded | None = None
        self.warmed_up = False
        self.failure: LoadFailed | None = None
        self.load_seconds = 0.0
        self._stall_seconds = stall_seconds
        self._clock = clock
        self._began = clock()

    def advance(self, percent: int, message: str, transfer: Transfer | None = None) -> None:
        self.progress = LoadProgress(percent, message, transfer)

    def loads_again(self) -> None:
        """As if it had just begun."""
        self.stage, self.progress, self.loaded = "loading", LoadProgress(), None
        self._began = self._clock()

    def became_ready(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.load_seconds = self._clock() - self._began
        self.stage = "ready"

    def failed(self, failure: LoadFailed) -> None:
        self.failure = failure
        self.stage = "failed"

    def not_ready(self) -> str | None:
        """Why no request is taken, in words for anyone; None when they are."""
        if self.failure is not None:
            return f"{self.failure.reason}: {redact(self.failure.message)}"
        if self.stage == "loading":
            return f"Loading: {self.progress.message} ({self.progress.percent}%)"
        if self.admission.draining:
            return "Draining: this server is about to end"
        return self.not_alive()

    def not_alive(self) -> str | None:
        """Why the process should be restarted; None when it is well."""
        if self.stage != "ready":
            return None
        activity = self.engine.activity()
        if not activity.alive:
            return "EngineDead: the engine has stopped working"
        standstill = self._clock() - activity.progressed_at
        if activity.active and standstill > self._stall_seconds:
            return (
                f"EngineStalled: {activity.active} requests and no token "
                f"for {standstill:.0f} seconds"
            )
        return None
