"""What machines say of their memory, as text that is read the same everywhere. Pure."""

from __future__ import annotations

import re


def meminfo(text: str, name: str) -> int | None:
    """Bytes of one line of Linux' /proc/meminfo; None without it."""
    match = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def darwin_available(vm_stat: str) -> int | None:
    """Bytes of free, inactive and speculative pages in `vm_stat`'s answer; None without them."""
    size = re.search(r"page size of (\d+) bytes", vm_stat)
    if size is None:
        return None
    pages = re.findall(r"^Pages (?:free|inactive|speculative):\s+(\d+)\.", vm_stat, re.MULTILINE)
    return int(size[1]) * sum(map(int, pages))
