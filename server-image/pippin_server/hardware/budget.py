"""How much memory a server may take, and whose word that is."""

from __future__ import annotations

from dataclasses import dataclass

from . import apple, cgroups, cpu
from .machine import Machine, ThisMachine


@dataclass(frozen=True, slots=True)
class Budget:
    """`of`: what would be exceeded, in words for the person who could change it."""

    bytes: int
    of: str


def budget(told: int | None = None, machine: Machine | None = None) -> Budget:
    """The least of what is told, what holds the process, and what there is."""
    here = machine or ThisMachine()
    limit = cgroups.limits(here).memory
    found = [(cpu.memory(here, limit).total, "this machine has")]
    found += [(gpu.working_set or 0, "the GPU may use (Metal)") for gpu in apple.probe(here)]
    found += [(limit or 0, "the limit of this container is")]
    found += [(told or 0, "the setting memory_limit is")]
    # At the same size, the word of whoever is nearest to the server.
    known = [Budget(*one) for one in reversed(found) if one[0]]
    return min(known, key=lambda one: one.bytes, default=Budget(0, "nobody says"))
