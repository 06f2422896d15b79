"""What this machine is: architecture, chip, memory. Facts are read through a small seam."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pippin_contract.memory import darwin_available, meminfo

#: Share of a Mac's unified memory that Metal may wire by default.
UNIFIED_SHARE = 0.75
#: Left to the machine itself on Linux.
LINUX_RESERVE = 100 * 1024 * 1024

_ARCH = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}

ReadText = Callable[[str], str]


@dataclass(frozen=True)
class Machine:
    """Facts that do not change while the agent runs. Memory in bytes."""

    os: str
    arch: str
    cpus: int
    memory: int
    pod_memory: int
    chip: str
    kernel: str
    os_image: str
    machine_id: str
    boot_id: str


def sysctl(name: str) -> str:
    """A kernel value on macOS; empty when there is no such thing."""
    done = subprocess.run(
        ["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def read_file(path: str) -> str:
    """A file's text; empty when there is none."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def machine(os_name: str, memory_budget: int | None = None) -> Machine:
    """This machine; `os_name` is what the node says it runs."""
    if platform.system() == "Darwin":
        memory, chip = darwin_memory(sysctl), darwin_chip(sysctl)
        boot_id, machine_id = sysctl("kern.bootsessionuuid"), f"{uuid.getnode():012x}"
        os_image = f"macOS {platform.mac_ver()[0]}"
    else:
        memory, chip = linux_memory(read_file), linux_chip(read_file)
        boot_id = read_file("/proc/sys/kernel/random/boot_id").strip()
        machine_id = read_file("/etc/machine-id").strip() or f"{uuid.getnode():012x}"
        os_image = linux_image(read_file)
    return Machine(
        os=os_name,
        arch=_architecture(os_name),
        cpus=os.cpu_count() or 1,
        memory=memory,
        pod_memory=memory_budget or pod_memory(platform.system(), memory),
        chip=chip,
        kernel=platform.release(),
        os_image=os_image,
        machine_id=machine_id,
        boot_id=boot_id,
    )


def _architecture(os_name: str) -> str:
    """As Kubernetes names it. What only passes for a Mac passes for one with Apple silicon."""
    here = platform.machine().lower()
    if os_name == "darwin" and platform.system() != "Darwin":
        return "arm64"
    return _ARCH.get(here, here)


def pod_memory(system: str, memory: int) -> int:
    """How much of the memory Pods may ask for."""
    if system == "Darwin":
        return int(memory * UNIFIED_SHARE)
    return max(memory - LINUX_RESERVE, 0)


def darwin_memory(read: ReadText) -> int:
    return int(read("hw.memsize") or 0)


def darwin_chip(read: ReadText) -> str:
    """`Apple M3 Max` -> `m3-max`."""
    return label_value(read("machdep.cpu.brand_string").removeprefix("Apple "))


def linux_memory(read: ReadText) -> int:
    return meminfo(read("/proc/meminfo"), "MemTotal") or 0


def linux_chip(read: ReadText) -> str:
    """`model name : AMD EPYC 7B13` -> `amd-epyc-7b13`; empty where the kernel does not say."""
    match = re.search(r"^model name\s*:\s*(.+)$", read("/proc/cpuinfo"), re.MULTILINE)
    return label_value(match[1]) if match else ""


def linux_image(read: ReadText) -> str:
    match = re.search(r'^PRETTY_NAME="?([^"\n]+)', read("/etc/os-release"), re.MULTILINE)
    return match[1] if match else "Linux"


def label_value(text: str) -> str:
    """Text as a label value: lower case, dashes for all else, 63 characters at most."""
    return re.sub(r"[^a-z0-9._]+", "-", text.lower())[:63].strip("-._")


def linux_available(read: ReadText) -> int | None:
    return meminfo(read("/proc/meminfo"), "MemAvailable")


def available_memory() -> int | None:
    """Bytes that a new process could have now; None when the machine does not say."""
    if platform.system() != "Darwin":
        return linux_available(read_file)
    done = subprocess.run(["/usr/bin/vm_stat"], capture_output=True, text=True, check=False)
    return darwin_available(done.stdout)


def disk(path: Path) -> tuple[int, int]:
    """Total and free bytes of the file system that holds `path`."""
    usage = shutil.disk_usage(path)
    return usage.total, usage.free
