"""NVIDIA's GPUs, as their driver's program tells, or at least the kernel."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .facts import Accelerator
from .machine import Machine

_FIELDS = ("name", "memory.total", "memory.used", "driver_version")
#: Not known to programs of drivers before 510.
_NEWER = "compute_cap"
_MIB = 1024 * 1024
_PROC = "/proc/driver/nvidia"


def probe(machine: Machine) -> Iterator[Accelerator]:
    found = list(query(machine))
    if found:
        return iter(found)
    return _from_kernel(machine)


def query(machine: Machine) -> Iterator[Accelerator]:
    """What `nvidia-smi` says now; nothing where it is not, or has no driver to ask."""
    for fields in ((*_FIELDS, _NEWER), _FIELDS):
        text = machine.run(
            "nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"
        )
        if text:
            return parse(text)
    return iter(())


def parse(text: str) -> Iterator[Accelerator]:
    """A line for each GPU; what it does not know is `[N/A]` or the like."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) < len(_FIELDS):
            continue  # "No devices were found"
        name, total, used, driver, *rest = cells
        yield Accelerator(
            "cuda",
            name,
            memory=_bytes(total),
            used=_bytes(used),
            driver=driver,
            generation=rest[0] if rest and rest[0][:1].isdigit() else "",
            # GPUs that share the machine's memory have none of their own to tell of.
            unified=_bytes(total) is None,
        )


def _bytes(cell: str) -> int | None:
    return int(cell) * _MIB if cell.isdigit() else None


def _from_kernel(machine: Machine) -> Iterator[Accelerator]:
    match = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)", machine.read(f"{_PROC}/version"))
    for name in machine.names(f"{_PROC}/gpus"):
        told = machine.read(f"{_PROC}/gpus/{name}/information")
        model = re.search(r"^Model:\s*(.+)$", told, re.MULTILINE)
        words = model[1].strip() if model else "NVIDIA GPU"
        yield Accelerator("cuda", words, driver=match[1] if match else "")
