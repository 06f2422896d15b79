"""What of a machine's memory a server may take: by control groups, by Metal and by what was set."""

from __future__ import annotations

import pytest

from pippin_server.hardware.budget import Budget, budget
from pippin_server.hardware.cgroups import Limits, limits
from support.machines import M3_MAX, Recorded

GIB = 2**30

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup rw,nsdelegate\n"
V1 = (
    "34 32 0:29 {root} /sys/fs/cgroup/memory ro,nosuid master:15 - cgroup cgroup rw,memory\n"
    "35 32 0:30 {root} /sys/fs/cgroup/cpu,cpuacct ro master:16 - cgroup cgroup rw,cpu,cpuacct\n"
)
POD = "/kubepods/burstable/pod1234/abcd"
GROUPS_V1 = f"11:memory:{POD}\n5:cpu,cpuacct:{POD}\n1:name=systemd:{POD}\n"
NONE_V1 = "9223372036854771712"

CGROUPS = {
    "a container of version 2": (
        {
            "/proc/self/cgroup": "0::/\n",
            "/proc/self/mountinfo": V2,
            "/sys/fs/cgroup/memory.max": "2147483648\n",
            "/sys/fs/cgroup/cpu.max": "150000 100000\n",
        },
        Limits(2 * GIB, 1.5),
    ),
    "version 2 without a limit": (
        {
            "/proc/self/cgroup": "0::/\n",
            "/proc/self/mountinfo": V2,
            "/sys/fs/cgroup/memory.max": "max\n",
            "/sys/fs/cgroup/cpu.max": "max 100000\n",
        },
        Limits(None, None),
    ),
    "a slice above that holds less": (
        {
            "/proc/self/cgroup": "0::/system.slice/pippin.service\n",
            "/proc/self/mountinfo": V2,
            "/sys/fs/cgroup/system.slice/pippin.service/memory.max": "8589934592\n",
            "/sys/fs/cgroup/system.slice/memory.max": "4294967296\n",
            "/sys/fs/cgroup/system.slice/cpu.max": "400000 100000\n",
        },
        Limits(4 * GIB, 4.0),
    ),
    "a container of version 1 with the host's names": (
        {
            "/proc/self/cgroup": GROUPS_V1,
            "/proc/self/mountinfo": V1.format(root=POD),
            "/sys/fs/cgroup/memory/memory.limit_in_bytes": "3221225472\n",
            "/sys/fs/cgroup/memory/memory.stat": f"cache 4096\nhierarchical_memory_limit {GIB}\n",
            "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000\n",
            "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
        Limits(GIB, 2.0),
    ),
    "version 1 without a limit": (
        {
            "/proc/self/cgroup": GROUPS_V1,
            "/proc/self/mountinfo": V1.format(root="/"),
            f"/sys/fs/cgroup/memory{POD}/memory.limit_in_bytes": NONE_V1,
            f"/sys/fs/cgroup/memory{POD}/memory.stat": f"hierarchical_memory_limit {NONE_V1}\n",
            f"/sys/fs/cgroup/cpu,cpuacct{POD}/cpu.cfs_quota_us": "-1\n",
        },
        Limits(None, None),
    ),
    "no control groups": ({}, Limits(None, None)),
    "nonsense": (
        {"/proc/self/cgroup": "::::\nx", "/proc/self/mountinfo": "1 2\n - \n - cgroup2"},
        Limits(None, None),
    ),
}


@pytest.mark.parametrize("name", CGROUPS)
def test_the_control_groups_limits_are_what_the_container_may_use(name: str) -> None:
    files, expected = CGROUPS[name]
    assert limits(Recorded(files)) == expected


@pytest.mark.parametrize(
    ("limit", "told", "expected"),
    [
        ("max", None, Budget(16 * GIB, "this machine has")),
        (str(2 * GIB), None, Budget(2 * GIB, "the limit of this container is")),
        (str(2 * GIB), 3 * GIB, Budget(2 * GIB, "the limit of this container is")),
        (str(2 * GIB), GIB, Budget(GIB, "the setting memory_limit is")),
        (str(2 * GIB), 2 * GIB, Budget(2 * GIB, "the setting memory_limit is")),
        ("max", 99 * GIB, Budget(16 * GIB, "this machine has")),
    ],
)
def test_the_least_of_all_limits_is_what_a_server_may_take(
    limit: str, told: int | None, expected: Budget
) -> None:
    files = {
        "/proc/meminfo": f"MemTotal: {16 * 2**20} kB\n",
        "/proc/self/cgroup": "0::/\n",
        "/proc/self/mountinfo": V2,
        "/sys/fs/cgroup/memory.max": limit,
    }
    assert budget(told, Recorded(files)) == expected


def test_a_server_on_a_mac_may_take_what_metal_may() -> None:
    mac = Recorded(prints=M3_MAX, system="Darwin", architecture="arm64")
    assert budget(None, mac) == Budget(48 * GIB, "the GPU may use (Metal)")
    assert budget(None, Recorded()) == Budget(0, "nobody says")
