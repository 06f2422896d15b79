"""Facts of a machine, read from the texts that Linux and macOS give."""

from __future__ import annotations

import pytest

from pippin_node import hardware

GIB = 2**30


def reads(**values: str) -> hardware.ReadText:
    return lambda name: values.get(name.replace("/", "_").replace(".", "_"), "")


def test_a_macs_chip_and_memory_come_from_sysctl() -> None:
    read = reads(hw_memsize="68719476736", machdep_cpu_brand_string="Apple M3 Max")
    assert hardware.darwin_memory(read) == 64 * GIB
    assert hardware.darwin_chip(read) == "m3-max"
    assert hardware.pod_memory("Darwin", 64 * GIB) == 48 * GIB


def test_linux_tells_by_proc() -> None:
    meminfo = "MemTotal:       16384 kB\nMemFree: 1 kB\nMemAvailable:    8192 kB\n"
    cpuinfo = "processor : 0\nmodel name\t: AMD EPYC 7B13 64-Core\nflags: x\n"
    read = reads(_proc_meminfo=meminfo, _proc_cpuinfo=cpuinfo)
    assert hardware.linux_memory(read) == 16384 * 1024
    assert hardware.linux_available(read) == 8192 * 1024
    assert hardware.linux_chip(read) == "amd-epyc-7b13-64-core"
    assert hardware.linux_chip(reads()) == ""
    assert hardware.linux_image(lambda _: 'ID=x\nPRETTY_NAME="Debian 12"\n') == "Debian 12"


@pytest.mark.parametrize(
    ("text", "label"),
    [("Intel(R) Xeon(R) CPU", "intel-r-xeon-r-cpu"), ("", ""), ("x" * 80, "x" * 63)],
)
def test_any_text_becomes_a_label_value(text: str, label: str) -> None:
    assert hardware.label_value(text) == label


def test_this_machine_has_memory_and_an_architecture() -> None:
    here = hardware.machine("darwin", memory_budget=5 * GIB)
    assert (here.os, here.arch) == ("darwin", "arm64")
    assert here.arch in ("amd64", "arm64")
    assert here.memory > GIB
    assert here.pod_memory == 5 * GIB
