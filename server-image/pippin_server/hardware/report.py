"""What was found, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from .choice import Choice
from .facts import Accelerator, Hardware, Kind

_KINDS: tuple[Kind, ...] = ("cuda", "rocm", "metal", "openvino", "qnn")
_GIB = 2**30


def payload(found: Hardware, choice: Choice) -> dict[str, object]:
    return {**described(found), "choice": asdict(choice)}


def described(found: Hardware) -> dict[str, object]:
    """Also part of /status."""
    return {
        "system": found.system,
        "cpu": {**asdict(found.cpu), "usable": found.cpu.usable},
        "memory": {**asdict(found.memory), "usable": found.memory.usable},
        "accelerators": [asdict(one) for one in found.accelerators],
        "notes": list(found.notes),
    }


def table(found: Hardware, choice: Choice) -> str:
    rows = list(_rows(found))
    rows.append(("engine", f"{choice.engine} on {choice.device}: {choice.reason}"))
    rows += [("hint", hint) for hint in choice.hints]
    rows += [("note", note) for note in found.notes]
    return "\n".join(f"{name:<10} {words}" for name, words in rows)


def _rows(found: Hardware) -> Iterator[tuple[str, str]]:
    cpu, memory = found.cpu, found.memory
    vectors = " ".join(cpu.vectors) or "no vector extensions that matter"
    yield "cpu", f"{cpu.name} ({found.system} {cpu.architecture}), {vectors}"
    quota = "no limit of time" if cpu.quota is None else f"limited to {cpu.quota:g}"
    yield "cpus", f"{cpu.count} of {cpu.total}, {quota}"
    limit = "no limit" if memory.limit is None else f"limited to {_gib(memory.limit)}"
    free = "" if memory.available is None else f", {_gib(memory.available)} available now"
    yield "memory", f"{_gib(memory.total)}, {limit}{free}"
    for kind in _KINDS:
        of_kind = found.of(kind)
        for one in of_kind:
            yield kind, _line(one)
        if not of_kind:
            yield kind, "none"


def _line(one: Accelerator) -> str:
    parts = [one.name]
    if one.memory is not None:
        shared = " shared with the CPU" if one.unified else ""
        parts.append(f"{_gib(one.memory)}{shared}")
    if one.used is not None:
        parts.append(f"{_gib(one.used)} used")
    if one.working_set is not None:
        parts.append(f"the GPU may use {_gib(one.working_set)}")
    parts += [part for part in (one.generation, one.driver and f"driver {one.driver}") if part]
    return ", ".join(parts)


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB"
