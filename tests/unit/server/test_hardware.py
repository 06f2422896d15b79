"""What is found of a machine: from records of real ones, and on this one."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence

import pytest

from pippin_server.hardware import amd, apple, cpu, nvidia, report
from pippin_server.hardware.choice import choose
from pippin_server.hardware.detect import detect
from pippin_server.hardware.facts import Accelerator, Cpu, Hardware, Memory
from pippin_server.hardware.machine import ThisMachine
from pippin_server.hardware.watch import Watch
from support.eventually import eventually
from support.machines import M3_MAX, Recorded

GIB = 2**30


# --- processors

EPYC = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model name\t: AMD EPYC 7B13
flags\t\t: fpu vme sse4_1 sse4_2 fma avx f16c avx2 sha_ni fsrm

processor\t: 1
model name\t: another
flags\t\t: fpu avx512f
"""
SAPPHIRE = """processor : 0
model name : Intel(R) Xeon(R) Platinum 8480+
flags : sse4_2 avx f16c fma avx2 avx_vnni avx512f avx512bw avx512_vnni avx512_bf16 amx_tile amx_bf16
"""
GRAVITON3 = """processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd evtstrm aes fphp asimdhp cpuid asimddp sve i8mm bf16 dgh
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: 0xd40
"""


@pytest.mark.parametrize(
    ("cpuinfo", "name", "vectors"),
    [
        (EPYC, "AMD EPYC 7B13", ["sse4_2", "avx", "f16c", "fma", "avx2"]),
        (
            SAPPHIRE,
            "Intel(R) Xeon(R) Platinum 8480+",
            ["sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw"]
            + ["avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16"],
        ),
        (GRAVITON3, "Arm Neoverse V1", ["neon", "fp16", "dotprod", "i8mm", "bf16", "sve"]),
        ("", "", []),
    ],
)
def test_processors_on_linux(cpuinfo: str, name: str, vectors: list[str]) -> None:
    assert cpu.linux(cpuinfo) == (name, vectors)


def test_a_mac_is_a_chip_with_one_memory_of_which_metal_takes_a_part() -> None:
    found = detect(Recorded(prints=M3_MAX, system="Darwin", architecture="arm64"))
    assert found.cpu.name == "Apple M3 Max"
    assert found.cpu.vectors == ("neon", "fp16", "dotprod", "i8mm", "bf16")
    assert found.memory == Memory(64 * GIB, None, 310000 * 16384)
    (chip,) = found.of("metal")
    assert (chip.name, chip.memory, chip.unified) == ("Apple M3 Max", 64 * GIB, True)
    assert (chip.working_set, chip.driver) == (48 * GIB, "macOS 15.3.1")
    assert choose(found, {"mlx": "0.32"}).device == "metal"
    assert "the GPU may use 48.0 GiB" in report.table(found, choose(found, {"mlx": "0.32"}))


@pytest.mark.parametrize(
    ("memory", "wired", "expected"),
    [
        (16 * GIB, "0", 16 * GIB * 2 // 3),
        (64 * GIB, "57344", 56 * GIB),
        (64 * GIB, "", 48 * GIB),
        (64 * GIB, "999999", 64 * GIB),
    ],
)
def test_what_metal_takes_can_be_set(memory: int, wired: str, expected: int) -> None:
    found = apple.chip({"hw.memsize": str(memory), "iogpu.wired_limit_mb": wired})
    assert found.working_set == expected


# --- GPUs

ASKS = "nvidia-smi --query-gpu=name,memory.total,memory.used,driver_version{} --format=csv,{}"
NEWER = ASKS.format(",compute_cap", "noheader,nounits")
OLDER = ASKS.format("", "noheader,nounits")


def test_nvidias_gpus_as_their_program_tells() -> None:
    text = (
        "NVIDIA H100 80GB HBM3, 81559, 4, 550.54.15, 9.0\n"
        "NVIDIA A100-SXM4-80GB, 81920, 70012, 550.54.15, 8.0\n"
    )
    h100, a100 = nvidia.probe(Recorded(prints={NEWER: text}))
    assert (h100.name, h100.generation, h100.driver) == (
        "NVIDIA H100 80GB HBM3",
        "9.0",
        "550.54.15",
    )
    assert (h100.memory, h100.used) == (81559 * 2**20, 4 * 2**20)
    assert a100.used == 70012 * 2**20 and not a100.unified


def test_a_driver_too_old_to_tell_the_capability() -> None:
    (found,) = nvidia.probe(Recorded(prints={OLDER: "Tesla V100-SXM2-16GB, 16160, 0, 450.80.02\n"}))
    assert (found.memory, found.generation) == (16160 * 2**20, "")


def test_a_gpu_that_shares_the_machines_memory_tells_none() -> None:
    (found,) = nvidia.probe(Recorded(prints={NEWER: "NVIDIA GB10, [N/A], [N/A], 580.95.05, 12.1"}))
    assert (found.memory, found.used, found.unified) == (None, None, True)


@pytest.mark.parametrize("text", ["No devices were found\n", "", "\n\n", "NVIDIA, x"])
def test_no_gpu_is_made_up(text: str) -> None:
    assert list(nvidia.probe(Recorded(prints={NEWER: text}))) == []


def test_without_the_program_the_kernel_still_names_them() -> None:
    files = {
        "/proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05"
        "  Sat Aug 19 01:15:15 UTC 2023\nGCC version:  gcc version 12.2.0\n",
        "/proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA GeForce RTX 3090\n"
        "IRQ:   \t\t 131\nGPU UUID: \t GPU-7b1d9c5a\n",
    }
    (found,) = nvidia.probe(Recorded(files))
    assert (found.name, found.driver) == ("NVIDIA GeForce RTX 3090", "535.104.05")


KFD = "/sys/class/kfd/kfd/topology/nodes"
MI300X = """cpu_cores_count 0
simd_count 1216
mem_banks_count 1
gfx_target_version 90402
vendor_id 4098
device_id 29857
drm_render_minor 128
local_mem_size 0
"""


def test_amds_gpus_as_the_kernel_lists_them() -> None:
    found = list(
        amd.probe(
            Recorded(
                {
                    f"{KFD}/0/properties": "cpu_cores_count 48\nsimd_count 0\n",
                    f"{KFD}/10/properties": MI300X.replace("minor 128", "minor 129"),
                    f"{KFD}/10/mem_banks/0/properties": "heap_type 1\nsize_in_bytes 1000\n",
                    f"{KFD}/10/mem_banks/1/properties": "heap_type 0\nsize_in_bytes 5\n",
                    f"{KFD}/2/properties": MI300X,
                    "/sys/class/drm/renderD128/device/mem_info_vram_total": "206141652992\n",
                    "/sys/class/drm/renderD128/device/mem_info_vram_used": "297652224\n",
                    "/sys/class/drm/renderD128/device/product_name": "AMD Instinct MI300X\n",
                    "/sys/module/amdgpu/version": "6.10.5\n",
                }
            )
        )
    )
    assert found == [
        Accelerator("rocm", "AMD Instinct MI300X", 206141652992, 297652224, "6.10.5", "gfx942"),
        Accelerator("rocm", "AMD GPU gfx942", 1000, None, "6.10.5", "gfx942"),
    ]


@pytest.mark.parametrize(
    ("version", "name"),
    [("90010", "gfx90a"), ("110501", "gfx1151"), ("120001", "gfx1201"), ("0", ""), ("x", "")],
)
def test_amds_names_of_targets(version: str, name: str) -> None:
    assert amd.gfx(version) == name


def test_what_openvino_and_qnn_would_compute_on() -> None:
    found = detect(
        Recorded(
            {
                "/sys/class/drm/renderD128/device/vendor": "0x8086\n",
                "/sys/class/drm/renderD128/device/uevent": "DRIVER=xe\nPCI_ID=8086:7D55\n",
                "/sys/class/drm/renderD129/device/vendor": "0x1002\n",
                "/sys/class/accel/accel0/device/uevent": "DRIVER=intel_vpu\nPCI_ID=8086:7D1D\n",
                "/dev/fastrpc-cdsp": "",
                "/sys/devices/soc0/machine": "QCS8550\n",
            }
        )
    )
    assert [one.name for one in found.of("openvino")] == ["Intel GPU 8086:7D55", "Intel NPU"]
    assert [one.name for one in found.of("qnn")] == ["Qualcomm Hexagon QCS8550"]
    choice = choose(found, {"mlx": "0.32"})
    assert choice.device == "cpu" and len(choice.hints) == 3


# --- which engine


def hardware(*accelerators: Accelerator) -> Hardware:
    processor = Cpu("AMD EPYC", "x86_64", 8, 8, 2.0, ("avx", "avx2"))
    return Hardware("Linux", processor, Memory(8 * GIB, None, None), accelerators)


H100 = Accelerator("cuda", "NVIDIA H100", 80 * GIB, 0, "550", "9.0")
M60 = Accelerator("cuda", "Tesla M60", 8 * GIB, 0, "550", "5.2")
MI300 = Accelerator("rocm", "AMD Instinct MI300X", generation="gfx942")
CHIP = Accelerator("metal", "Apple M3 Max", 64 * GIB, unified=True)


@pytest.mark.parametrize(
    ("found", "versions", "engine", "device", "hint"),
    [
        ((H100,), {"mlx": "1", "vllm": "0.12.0"}, "vllm", "cuda", ""),
        ((MI300,), {"mlx": "1", "vllm": "0.12.0"}, "vllm", "rocm", ""),
        ((H100,), {"mlx": "1"}, "mlx", "cpu", "install vllm"),
        ((H100,), {"mlx": "1", "vllm": "0.12.0+cpu"}, "mlx", "cpu", "a build for CPUs"),
        ((M60,), {"mlx": "1", "vllm": "0.12.0"}, "mlx", "cpu", "this has 5.2"),
        ((CHIP,), {"mlx": "1", "vllm": "0.12.0"}, "mlx", "metal", ""),
        ((CHIP,), {}, "echo", "cpu", "install mlx"),
        ((), {"mlx": "1", "vllm": "0.12.0+cpu"}, "mlx", "cpu", ""),
        ((), {"vllm": "0.12.0+cpu"}, "vllm", "cpu", ""),
        ((), {}, "echo", "cpu", ""),
    ],
)
def test_the_engine_that_uses_most_of_the_machine_is_taken(
    found: tuple[Accelerator, ...], versions: dict[str, str], engine: str, device: str, hint: str
) -> None:
    choice = choose(hardware(*found), versions)
    assert (choice.engine, choice.device) == (engine, device)
    assert hint in " ".join(choice.hints)
    assert bool(hint) == bool(choice.hints)


def test_the_report_is_json_and_a_table_of_everything() -> None:
    found = hardware(H100)
    choice = choose(found, {"vllm": "0.12.0"})
    told = json.loads(json.dumps(report.payload(found, choice)))
    assert told["cpu"]["usable"] == 2.0 and told["accelerators"][0]["memory"] == 80 * GIB
    assert told["choice"]["engine"] == "vllm"
    lines = report.table(found, choice).splitlines()
    assert [line.split()[0] for line in lines] == (
        ["cpu", "cpus", "memory", "cuda", "rocm", "metal", "openvino", "qnn", "engine"]
    )
    assert "80.0 GiB" in lines[3] and "limited to 2" in lines[1]


# --- whatever happens


class Hangs(Recorded):
    def run(self, *command: str) -> str:
        threading.Event().wait(30)
        return ""


class Breaks(Recorded):
    def names(self, directory: str) -> Sequence[str]:
        raise PermissionError("not you")


def test_a_driver_that_hangs_costs_its_own_facts_and_not_the_start() -> None:
    began = time.monotonic()
    found = detect(Hangs({"/proc/cpuinfo": EPYC}), within=0.2)
    assert time.monotonic() - began < 5
    assert found.cpu.name == "AMD EPYC 7B13"
    assert found.notes == ("cuda: no answer in time",)


def test_a_probe_that_breaks_is_told_and_nothing_else() -> None:
    found = detect(Breaks({"/proc/meminfo": "MemTotal:       16384 kB\nMemAvailable: 8 kB\n"}))
    assert found.memory == Memory(2**24, None, 2**13)
    assert len(found.notes) == 3 and all("not you" in note for note in found.notes)


def test_this_machine() -> None:
    found = detect()
    assert found.notes == ()
    assert found.memory.total >= found.memory.usable > 2**28
    assert found.memory.available is not None
    assert found.cpu.total >= found.cpu.usable > 0 and found.cpu.vectors


def test_programs_and_files_that_are_not_there_are_empty() -> None:
    machine = ThisMachine()
    assert machine.run("no-such-program") == machine.run("false") == ""
    assert machine.read("/nowhere") == machine.read("/") == machine.read("/a\0b") == ""
    assert list(machine.names("/nowhere")) == []


def test_a_program_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pippin_server.hardware.machine._PROGRAM", 0.1)
    began = time.monotonic()
    assert ThisMachine().run("sleep", "60") == ""
    assert time.monotonic() - began < 30


async def test_hardware_is_looked_at_aside_and_again_when_it_is_old() -> None:
    now, looks = [0.0], []
    release = threading.Event()

    def look() -> Hardware:
        looks.append(threading.current_thread())
        release.wait(10)
        return hardware(*[H100] * len(looks))

    watch = Watch(lambda: now[0], look)
    assert watch.now() is None and watch.now() is None, "nobody waits"
    release.set()
    await eventually(lambda: watch.now() is not None, within=10)
    assert len(looks) == 1
    now[0] = 11.0
    watch.now()
    await eventually(lambda: len(watch.now().accelerators) == 2, within=10)  # type: ignore[union-attr]
