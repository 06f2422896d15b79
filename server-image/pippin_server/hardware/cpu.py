"""The processor: its name, how much of it is ours, and its vector extensions."""

from __future__ import annotations

from collections.abc import Iterator

from pippin_contract.memory import darwin_available, meminfo

from .facts import Cpu, Memory
from .machine import Machine

#: What computing with weights gains from, in the kernel's words, worst first.
_X86 = (
    "sse4_2 avx f16c fma avx2 avx_vnni avx512f avx512bw avx512_vnni avx512_bf16 avx512_fp16"
    " amx_tile amx_int8 amx_bf16"
).split()
#: Kernel's word -> the usual one.
_ARM = {
    "asimd": "neon", "asimdhp": "fp16", "asimddp": "dotprod", "i8mm": "i8mm", "bf16": "bf16",
    "sve": "sve", "sve2": "sve2", "sme": "sme", "sme2": "sme2",
}  # fmt: skip
_APPLE = {
    "AdvSIMD": "neon", "FEAT_FP16": "fp16", "FEAT_DotProd": "dotprod", "FEAT_I8MM": "i8mm",
    "FEAT_BF16": "bf16", "FEAT_SME": "sme", "FEAT_SME2": "sme2",
}  # fmt: skip
#: Implementer and part of processors that the kernel gives no name.
_PARTS = {
    "0x41/0xd0c": "Arm Neoverse N1", "0x41/0xd40": "Arm Neoverse V1",
    "0x41/0xd49": "Arm Neoverse N2", "0x41/0xd4f": "Arm Neoverse V2",
    "0x41/0xd84": "Arm Neoverse V3", "0x41/0xd8e": "Arm Neoverse N3",
    "0xc0/0xac3": "Ampere-1", "0x51/0x001": "Qualcomm Oryon",
}  # fmt: skip


def probe(machine: Machine, quota: float | None) -> Cpu:
    total, count = machine.cpus()
    if machine.system == "Darwin":
        values = sysctls(machine.run("sysctl", "machdep.cpu", "hw.optional"))
        name, vectors = darwin(values)
    else:
        name, vectors = linux(machine.read("/proc/cpuinfo"))
    return Cpu(name or "unknown", machine.architecture, total, count, quota, tuple(vectors))


def linux(cpuinfo: str) -> tuple[str, list[str]]:
    """Name and vector extensions, of x86-64 and of arm64."""
    fields = dict(_fields(cpuinfo))
    if "flags" in fields:
        flags = set(fields["flags"].split())
        return fields.get("model name", ""), [flag for flag in _X86 if flag in flags]
    features = set(fields.get("Features", "").split())
    part = f"{fields.get('CPU implementer', '')}/{fields.get('CPU part', '')}"
    name = fields.get("model name") or _PARTS.get(part, "")
    return name, [word for flag, word in _ARM.items() if flag in features]


def _fields(text: str) -> Iterator[tuple[str, str]]:
    """Of the first processor."""
    for line in text.strip().partition("\n\n")[0].splitlines():
        name, colon, value = line.partition(":")
        if colon:
            yield name.strip(), value.strip()


def sysctls(text: str) -> dict[str, str]:
    """`name: value`, a line each."""
    pairs = (line.partition(": ") for line in text.splitlines())
    return {name: value.strip() for name, colon, value in pairs if colon}


def darwin(values: dict[str, str]) -> tuple[str, list[str]]:
    name = values.get("machdep.cpu.brand_string", "")
    found = [
        word for key, word in _APPLE.items() if values.get(f"hw.optional.arm.{key}", "0") != "0"
    ]
    if not found and values.get("hw.optional.neon", "0") != "0":
        found = ["neon"]
    words = f"{values.get('machdep.cpu.features', '')} {values.get('machdep.cpu.leaf7_features')}"
    intel = {_intel(word) for word in words.lower().split()}
    return name, found or [flag for flag in _X86 if flag in intel]


def _intel(word: str) -> str:
    """As Linux calls it."""
    return {"sse4.2": "sse4_2", "avx1.0": "avx"}.get(word, word)


def memory(machine: Machine, limit: int | None) -> Memory:
    if machine.system == "Darwin":
        total = machine.run("sysctl", "-n", "hw.memsize").strip()
        pages = machine.run("vm_stat")
        return Memory(int(total) if total.isdigit() else 0, limit, darwin_available(pages))
    info = machine.read("/proc/meminfo")
    return Memory(meminfo(info, "MemTotal") or 0, limit, meminfo(info, "MemAvailable"))
