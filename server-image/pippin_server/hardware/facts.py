"""What can be found on a machine. Memory in bytes; None: nobody says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["cuda", "rocm", "metal", "openvino", "qnn"]


@dataclass(frozen=True, slots=True)
class Cpu:
    """`count`: of the machine's, those that this process may use; `quota`: how much of them."""

    name: str
    architecture: str
    total: int
    count: int
    quota: float | None
    vectors: tuple[str, ...]

    @property
    def usable(self) -> float:
        return min(float(self.count), self.quota or self.count)


@dataclass(frozen=True, slots=True)
class Memory:
    """`limit`: the control group's; `available`: what the machine could give right now."""

    total: int
    limit: int | None
    available: int | None

    @property
    def usable(self) -> int:
        """Beyond this somebody ends the process."""
        return min(self.total, self.limit or self.total)


@dataclass(frozen=True, slots=True)
class Accelerator:
    """`generation`: compute capability, gfx target, or the like. `unified`: its memory is the
    machine's. `working_set`: what of it the GPU should use at most."""

    kind: Kind
    name: str
    memory: int | None = None
    used: int | None = None
    driver: str = ""
    generation: str = ""
    unified: bool = False
    working_set: int | None = None


@dataclass(frozen=True, slots=True)
class Hardware:
    """`notes`: probes that could not be carried through, and why."""

    system: str
    cpu: Cpu
    memory: Memory
    accelerators: tuple[Accelerator, ...] = ()
    notes: tuple[str, ...] = ()

    def of(self, kind: Kind) -> list[Accelerator]:
        return [one for one in self.accelerators if one.kind == kind]
