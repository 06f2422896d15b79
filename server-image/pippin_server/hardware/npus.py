"""What OpenVINO and Qualcomm's QNN would compute on, as the kernel's drivers show it."""

from __future__ import annotations

from collections.abc import Iterator

from .facts import Accelerator, Kind
from .machine import Machine

_INTEL = "0x8086"
#: Drivers of /sys/class/accel -> whose they are, and what they are called.
_NPUS: dict[str, tuple[Kind, str]] = {
    "intel_vpu": ("openvino", "Intel NPU"),
    "qaic": ("qnn", "Qualcomm Cloud AI"),
}


def probe(machine: Machine) -> Iterator[Accelerator]:
    for name in machine.names("/sys/class/drm"):
        if name.startswith("renderD"):
            yield from _intel_gpu(machine, f"/sys/class/drm/{name}/device")
    for name in machine.names("/sys/class/accel"):
        yield from _npu(machine, f"/sys/class/accel/{name}/device")
    if any(name.startswith("fastrpc-cdsp") for name in machine.names("/dev")):
        soc = machine.read("/sys/devices/soc0/machine").strip()
        yield Accelerator("qnn", f"Qualcomm Hexagon {soc}".strip(), driver="fastrpc", unified=True)


def _intel_gpu(machine: Machine, device: str) -> Iterator[Accelerator]:
    if machine.read(f"{device}/vendor").strip() == _INTEL:
        told = _uevent(machine, device)
        name = f"Intel GPU {told.get('PCI_ID', '')}".strip()
        yield Accelerator("openvino", name, driver=told.get("DRIVER", ""))


def _npu(machine: Machine, device: str) -> Iterator[Accelerator]:
    driver = _uevent(machine, device).get("DRIVER", "")
    if driver in _NPUS:
        kind, name = _NPUS[driver]
        yield Accelerator(kind, name, driver=driver)


def _uevent(machine: Machine, device: str) -> dict[str, str]:
    lines = machine.read(f"{device}/uevent").splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}
