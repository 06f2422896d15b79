"""Pictures that are kept for a while, to be fetched by names that nobody can guess.

In files without a name on the disk: they are gone with the process, however it ends.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from typing import IO, NamedTuple

#: How many, how large together, and for how many seconds. An open file each.
MOST_FILES, MOST_BYTES, SECONDS = 64, 256 * 1024 * 1024, 3600.0


class _Kept(NamedTuple):
    file: IO[bytes]
    size: int
    until: float


class Shelf:
    """The oldest go when their time is over, or when there is no room for a new one."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        most_files: int = MOST_FILES,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._clock = clock
        self._most_files = most_files
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._bytes = 0

    def put(self, content: bytes) -> str:
        """Its name. Raises OSError when there is no room on the disk."""
        self._tidy(len(content))
        file = tempfile.TemporaryFile(prefix="pippin-")
        try:
            file.write(content)
            file.flush()
        except OSError:
            file.close()
            raise
        name = secrets.token_urlsafe(32) + ".png"
        self._kept[name] = _Kept(file, len(content), self._clock() + SECONDS)
        self._bytes += len(content)
        return name

    def get(self, name: str) -> tuple[bytes, int] | None:
        """The picture, and the seconds for which it will still be here."""
        self._tidy(0)
        kept = self._kept.get(name)
        if kept is None:
            return None
        content = os.pread(kept.file.fileno(), kept.size, 0)
        return content, max(0, int(kept.until - self._clock()))

    def close(self) -> None:
        """All are gone. The end of the process does the same."""
        while self._kept:
            self._kept.popitem()[1].file.close()
        self._bytes = 0

    def _tidy(self, coming: int) -> None:
        now = self._clock()
        while self._kept:
            oldest = next(iter(self._kept.values()))
            full = coming and len(self._kept) >= self._most_files
            if not (full or self._bytes + coming > self._most_bytes or oldest.until <= now):
                return
            _, gone = self._kept.popitem(last=False)
            gone.file.close()
            self._bytes -= gone.size
