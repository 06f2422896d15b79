"""What the control group lets this process have, in versions 1 and 2, own namespace or not.

A group is held by those above it too, so each is asked that can be seen from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from .machine import Machine

#: Version 1 says "no limit" by a number near the largest there is.
_NO_LIMIT = 2**60
#: Version 2's one hierarchy has no name.
_UNIFIED = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes, and CPUs' worth of time. None: no limit."""

    memory: int | None = None
    cpus: float | None = None


def limits(machine: Machine) -> Limits:
    groups = _groups(machine.read("/proc/self/cgroup"))
    mounts = list(_mounts(machine.read("/proc/self/mountinfo")))
    memory: list[int] = []
    cpus: list[float] = []
    for controllers, root, point in mounts:
        named = _UNIFIED in controllers or controllers & groups.keys()
        if not named:
            continue
        group = groups.get(next(iter(controllers & groups.keys()), _UNIFIED), "/")
        for directory in _upwards(group, root, point):
            memory += _memory(machine, directory)
            cpus += _cpus(machine, directory)
    return Limits(min(memory, default=None), min(cpus, default=None))


def _groups(text: str) -> dict[str, str]:
    """Controller -> the group of this process. `4:memory:/a` of version 1, `0::/a` of version 2."""
    found = {}
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number.isdigit() and path:
            found.update(dict.fromkeys(controllers.split(","), path))
    return found


def _mounts(text: str) -> Iterator[tuple[set[str], str, str]]:
    """Controllers, root and mount point of each hierarchy."""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        place, kind = before.split(), after.split()
        if len(place) < 5 or not kind:
            continue
        if kind[0] == "cgroup2":
            yield {_UNIFIED}, place[3], place[4]
        elif kind[0] == "cgroup":
            yield set(kind[-1].split(",")) & {"memory", "cpu"}, place[3], place[4]


def _upwards(group: str, root: str, point: str) -> Iterator[str]:
    """The directories of a group and of those above it, as far as they are mounted."""
    path, top = PurePosixPath(group), PurePosixPath(root)
    # Without a namespace of its own a container sees a name that its mount does not have.
    inside = path.relative_to(top) if path.is_relative_to(top) else PurePosixPath()
    here = PurePosixPath(point)
    for below in (inside, *inside.parents):
        if ".." not in below.parts:
            yield str(here / below)


def _memory(machine: Machine, directory: str) -> Iterator[int]:
    for file in ("memory.max", "memory.limit_in_bytes"):
        yield from _bounded(machine.read(f"{directory}/{file}"))
    for line in machine.read(f"{directory}/memory.stat").splitlines():
        # Of version 1; also of groups above the topmost that is mounted.
        name, _, value = line.partition(" ")
        if name == "hierarchical_memory_limit":
            yield from _bounded(value)


def _bounded(text: str) -> Iterator[int]:
    told = text.strip()
    if told.isdigit() and int(told) < _NO_LIMIT:
        yield int(told)


def _cpus(machine: Machine, directory: str) -> Iterator[float]:
    quota, _, period = machine.read(f"{directory}/cpu.max").strip().partition(" ")
    if not quota:
        quota = machine.read(f"{directory}/cpu.cfs_quota_us").strip()
        period = machine.read(f"{directory}/cpu.cfs_period_us").strip()
    if quota.isdigit() and period.isdigit() and int(period):  # "max", or -1: no limit
        yield int(quota) / int(period)
