"""How much memory there is."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

#: Where a container reads its limit, in control groups of version 2 and 1.
_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def limit(files: Iterable[Path] = _LIMITS) -> int:
    """Bytes that this container may have; without a limit, the machine's."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in files:
        with suppress(OSError, ValueError):  # not this version, or "max"
            found.append(int(file.read_text()))
    return min(found)
