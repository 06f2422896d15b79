"""A fast BLAS for MLX on Linux, without root, a compiler or a second process.

The Linux wheel of MLX is linked against the reference BLAS, which is tens of times slower than
OpenBLAS. `scipy-openblas32` brings an OpenBLAS that picks its kernels for the CPU at hand, but
prefixes its symbols, so it cannot be preloaded. So the three matrix products that MLX calls are
redirected in its jump table, the table by which the dynamic linker itself binds them.
It must happen before the first product, and changes nothing when anything looks unfamiliar.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PRODUCTS = ("cblas_sgemm", "cblas_dgemm", "cblas_cgemm")

_PT_DYNAMIC = 2
_DT_PLTRELSZ, _DT_STRTAB, _DT_SYMTAB, _DT_RELA, _DT_RELASZ, _DT_JMPREL = 2, 5, 6, 7, 8, 23
_SYMBOL_BYTES = 24
_RELA = struct.Struct("<QQq")


class Unavailable(Exception):
    """Why the reference BLAS stays; the words are for the log."""


@dataclass(frozen=True)
class Accelerated:
    """What computes MLX's matrix products from now on."""

    core: str
    threads: int


def accelerate(threads: int | None = None) -> Accelerated:
    """Give MLX's matrix products to OpenBLAS. Import `mlx.core` first. Raises Unavailable."""
    if sys.platform != "linux" or sys.byteorder != "little" or struct.calcsize("P") != 8:
        raise Unavailable("only 64-bit little-endian Linux needs and knows it")
    openblas = _load_openblas()
    count = threads or default_threads()
    openblas.scipy_openblas_set_num_threads(ctypes.c_int(count))
    slots = dict(_jump_slots(_mapped("libmlx.so")))
    missing = [name for name in PRODUCTS if name not in slots]
    if missing:
        raise Unavailable(f"MLX does not bind {', '.join(missing)} by its jump table")
    for name in PRODUCTS:
        target = ctypes.cast(getattr(openblas, f"scipy_{name}"), ctypes.c_void_p).value
        _write_pointer(slots[name], target or 0)
    openblas.scipy_openblas_get_corename.restype = ctypes.c_char_p
    return Accelerated(core=openblas.scipy_openblas_get_corename().decode(), threads=count)


def default_threads() -> int:
    """Half of the CPUs that this process may use.

    OpenBLAS's threads wait for each other by spinning: with as many as there are CPUs, the event
    loop, MLX's own thread and every neighbour take turns with them (measured on a busy machine: a
    third of the tokens of one thread).
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return max(1, min(allowed, _quota() or allowed) // 2)


def _quota() -> int | None:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else -(-int(quota) // int(period))


def _load_openblas() -> ctypes.CDLL:
    spec = importlib.util.find_spec("scipy_openblas32")
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable("the package scipy-openblas32 is not installed")
    path = Path(spec.submodule_search_locations[0]) / "lib" / "libscipy_openblas.so"
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise Unavailable(f"OpenBLAS cannot be loaded: {error}") from error


def _mapped(name: str) -> int:
    """The address at which a shared library of this process begins."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].endswith("/" + name) and int(fields[2], 16) == 0:
            return int(fields[0].partition("-")[0], 16)
    raise Unavailable(f"{name} is not loaded")


def _jump_slots(base: int) -> Iterator[tuple[str, int]]:
    """Name and address of every slot through which the library at `base` calls others."""
    dynamic = _dynamic(base)
    symbols, strings = base + dynamic[_DT_SYMTAB], base + dynamic[_DT_STRTAB]
    # glibc rewrites these entries to absolute addresses when it loads a library; musl does not.
    if dynamic[_DT_SYMTAB] > base:
        symbols, strings = dynamic[_DT_SYMTAB], dynamic[_DT_STRTAB]
    for table, size in ((_DT_JMPREL, _DT_PLTRELSZ), (_DT_RELA, _DT_RELASZ)):
        start = dynamic.get(table, 0)
        start = start if start > base else base + start
        for offset, info, _ in _RELA.iter_unpack(ctypes.string_at(start, dynamic.get(size, 0))):
            symbol = info >> 32
            if symbol:
                name = ctypes.c_uint32.from_address(symbols + symbol * _SYMBOL_BYTES).value
                yield ctypes.string_at(strings + name).decode("ascii", "replace"), base + offset


def _dynamic(base: int) -> dict[int, int]:
    """The dynamic section, by tag."""
    header = ctypes.string_at(base, 64)
    if header[:6] != b"\x7fELF\x02\x01":
        raise Unavailable("MLX's library is no 64-bit little-endian ELF file")
    table, entry_bytes, entries = *struct.unpack_from("<Q", header, 32), *_ph(header)
    for index in range(entries):
        kind, _, _, address = struct.unpack(
            "<IIQQ", ctypes.string_at(base + table + index * entry_bytes, 24)
        )
        if kind == _PT_DYNAMIC:
            return dict(_entries(base + address))
    raise Unavailable("MLX's library has no dynamic section")


def _ph(header: bytes) -> tuple[int, int]:
    size, count = struct.unpack_from("<HH", header, 54)
    return size, count


def _entries(address: int) -> Iterator[tuple[int, int]]:
    while True:
        tag, value = struct.unpack("<QQ", ctypes.string_at(address, 16))
        if tag == 0:
            return
        yield tag, value
        address += 16


def _write_pointer(address: int, value: int) -> None:
    """Write, also where the linker made its table read-only after binding."""
    page = os.sysconf("SC_PAGESIZE")
    start = address - address % page
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(page), 1 | 2) != 0:
        raise Unavailable(f"the jump table is read-only: {os.strerror(ctypes.get_errno())}")
    ctypes.c_void_p.from_address(address).value = value
