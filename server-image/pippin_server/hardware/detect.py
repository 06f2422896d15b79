"""All probes at once, each with a deadline, and whatever happens to one is only its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from . import amd, apple, cgroups, cpu, npus, nvidia
from .facts import Accelerator, Cpu, Hardware, Memory
from .machine import Machine, ThisMachine

T = TypeVar("T")
#: Seconds for all of them together: a driver that hangs holds its own probe only.
WITHIN = 8.0
_ACCELERATORS: dict[str, Callable[[Machine], Iterable[Accelerator]]] = {
    "cuda": nvidia.probe,
    "rocm": amd.probe,
    "metal": apple.probe,
    "openvino, qnn": npus.probe,
}


def detect(machine: Machine | None = None, within: float = WITHIN) -> Hardware:
    """What is here. Never raises, and is back in time; blocks for as long as the slowest probe."""
    here = machine or ThisMachine()
    until = time.monotonic() + within
    limits = Probe("limits", lambda: cgroups.limits(here), cgroups.Limits())
    probes = [
        Probe[list[Accelerator]](name, lambda ask=ask: list(ask(here)), [])  # type: ignore[misc]
        for name, ask in _ACCELERATORS.items()
    ]
    held = limits.result(until)
    processor = Probe("cpu", lambda: cpu.probe(here, held.cpus), _UNKNOWN_CPU)
    memory = Probe("memory", lambda: cpu.memory(here, held.memory), Memory(0, held.memory, None))
    found = tuple(one for probe in probes for one in probe.result(until))
    facts = processor.result(until), memory.result(until)
    every: list[Probe[Any]] = [limits, processor, memory, *probes]
    notes = tuple(probe.trouble for probe in every if probe.trouble)
    return Hardware(here.system, *facts, found, notes)


_UNKNOWN_CPU = Cpu("unknown", "", 1, 1, None, ())


class Probe(Generic[T]):
    """Runs on a thread of its own, for which nobody waits longer than they want."""

    def __init__(self, name: str, ask: Callable[[], T], otherwise: T) -> None:
        self._name = name
        self._ask = ask
        self._found = otherwise
        self.trouble = ""
        self._thread = threading.Thread(target=self._run, name=f"pippin-{name}", daemon=True)
        self._thread.start()

    def result(self, until: float) -> T:
        """What was found by then (monotonic), else what was given for it."""
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            self.trouble = f"{self._name}: no answer in time"
        return self._found

    def _run(self) -> None:
        try:
            self._found = self._ask()
        except Exception as error:
            # What a driver or a kernel says can be anything; a machine is described all the same.
            self.trouble = f"{self._name}: {type(error).__name__}: {error}"
