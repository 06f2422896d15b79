"""Apple's chips: GPU and CPU on one memory, of which Metal wants only a part."""

from __future__ import annotations

from collections.abc import Iterator

from .cpu import sysctls
from .facts import Accelerator
from .machine import Machine

_MIB = 1024 * 1024
#: Up to here Metal recommends two thirds of the memory, and three quarters of more.
_SMALL = 36 * 2**30
_ASKED = ("machdep.cpu.brand_string", "hw.memsize", "iogpu.wired_limit_mb", "kern.osproductversion")


def probe(machine: Machine) -> Iterator[Accelerator]:
    if machine.system == "Darwin" and machine.architecture == "arm64":
        # One at a time: a name that this macOS does not know fails all of a call.
        yield chip(sysctls("".join(machine.run("sysctl", name) for name in _ASKED)))


def chip(values: dict[str, str]) -> Accelerator:
    told = values.get("hw.memsize", "")
    memory = int(told) if told.isdigit() else None
    return Accelerator(
        "metal",
        values.get("machdep.cpu.brand_string") or "Apple silicon",
        memory=memory,
        driver=f"macOS {values.get('kern.osproductversion', '')}".strip(),
        unified=True,
        working_set=None if memory is None else _working_set(memory, values),
    )


def _working_set(memory: int, values: dict[str, str]) -> int:
    """What the owner set, else Metal's own recommendation; 0 stands for that too."""
    wired = values.get("iogpu.wired_limit_mb", "")
    if wired.isdigit() and int(wired):
        return min(memory, int(wired) * _MIB)
    return memory * 2 // 3 if memory <= _SMALL else memory * 3 // 4
