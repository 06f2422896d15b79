"""Machines of which the files and the answers of programs were written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Recorded:
    """A machine of which somebody wrote down the files and what programs printed."""

    files: dict[str, str] = field(default_factory=dict)
    prints: dict[str, str] = field(default_factory=dict)
    system: str = "Linux"
    architecture: str = "x86_64"

    def read(self, path: str) -> str:
        return self.files.get(path, "")

    def names(self, directory: str) -> Sequence[str]:
        inside = [path for path in self.files if path.startswith(directory + "/")]
        return sorted({path[len(directory) + 1 :].partition("/")[0] for path in inside})

    def run(self, *command: str) -> str:
        return self.prints.get(" ".join(command), "")

    def cpus(self) -> tuple[int, int]:
        return 8, 8


M3_MAX = {
    "sysctl machdep.cpu hw.optional": (
        "machdep.cpu.cores_per_package: 16\n"
        "machdep.cpu.brand_string: Apple M3 Max\n"
        "hw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_BF16: 1\n"
        "hw.optional.arm.FEAT_I8MM: 1\nhw.optional.arm.FEAT_SME: 0\n"
        "hw.optional.arm.AdvSIMD: 1\nhw.optional.arm.FEAT_FP16: 1\nhw.optional.neon: 1\n"
    ),
    "sysctl -n hw.memsize": "68719476736\n",
    "sysctl machdep.cpu.brand_string": "machdep.cpu.brand_string: Apple M3 Max\n",
    "sysctl hw.memsize": "hw.memsize: 68719476736\n",
    "sysctl iogpu.wired_limit_mb": "iogpu.wired_limit_mb: 0\n",
    "sysctl kern.osproductversion": "kern.osproductversion: 15.3.1\n",
    "vm_stat": (
        "Mach Virtual Memory Statistics: (page size of 16384 bytes)\n"
        "Pages free:                              100000.\n"
        "Pages active:                           1500000.\n"
        "Pages inactive:                          200000.\n"
        "Pages speculative:                        10000.\n"
    ),
}
