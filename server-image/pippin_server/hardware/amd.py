"""AMD's GPUs as the kernel's compute driver (kfd) lists them."""

from __future__ import annotations

from collections.abc import Iterator

from .facts import Accelerator
from .machine import Machine

_NODES = "/sys/class/kfd/kfd/topology/nodes"
#: Heaps of a node that are the GPU's own; 0 is the machine's.
_OWN = ("1", "2")


def probe(machine: Machine) -> Iterator[Accelerator]:
    for node in sorted(machine.names(_NODES), key=lambda name: (len(name), name)):
        properties = _properties(machine.read(f"{_NODES}/{node}/properties"))
        if properties.get("simd_count", "0") == "0":
            continue  # a CPU
        yield _gpu(machine, f"{_NODES}/{node}", properties)


def _gpu(machine: Machine, node: str, properties: dict[str, str]) -> Accelerator:
    device = f"/sys/class/drm/renderD{properties.get('drm_render_minor', '')}/device"
    target = gfx(properties.get("gfx_target_version", ""))
    name = machine.read(f"{device}/product_name").strip()
    total = machine.read(f"{device}/mem_info_vram_total").strip()
    used = machine.read(f"{device}/mem_info_vram_used").strip()
    own = int(total) if total.isdigit() else _heaps(machine, node)
    return Accelerator(
        "rocm",
        name or f"AMD GPU {target}".strip(),
        memory=own,
        used=int(used) if used.isdigit() else None,
        driver=machine.read("/sys/module/amdgpu/version").strip(),
        generation=target,
        unified=properties.get("cpu_cores_count", "0") != "0",
    )


def _heaps(machine: Machine, node: str) -> int | None:
    sizes = []
    for bank in machine.names(f"{node}/mem_banks"):
        told = _properties(machine.read(f"{node}/mem_banks/{bank}/properties"))
        if told.get("heap_type") in _OWN and told.get("size_in_bytes", "").isdigit():
            sizes.append(int(told["size_in_bytes"]))
    return sum(sizes) or None


def _properties(text: str) -> dict[str, str]:
    """`name value`, a line each."""
    return {name: value.strip() for name, _, value in (s.partition(" ") for s in text.splitlines())}


def gfx(version: str) -> str:
    """`90402` -> gfx942, `90010` -> gfx90a: two decimal digits each, told as one hexadecimal."""
    if not version.isdigit() or version == "0":
        return ""
    major, minor, step = int(version) // 10000, int(version) // 100 % 100, int(version) % 100
    return f"gfx{major}{minor:x}{step:x}"
