"""A file of a mounted Secret, taken up again whenever it changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

#: Seconds between two looks at the file: mounted Secrets change by a swapped link.
LOOK_SECONDS = 2.0

log = structlog.get_logger("pippin.secrets")


class SecretFile:
    """`take` gets its bytes; a file that it raises ValueError for is not taken up."""

    def __init__(self, file: Path, take: Callable[[bytes], object]) -> None:
        self._file = file
        self._take = take
        self._held = b""
        self._complained = ""

    def look(self) -> None:
        """Take up the file if it changed."""
        try:
            found = self._file.read_bytes()
            if found == self._held:
                return
            self._take(found)
        except (OSError, ValueError) as error:
            why = str(error.strerror if isinstance(error, OSError) else error)
            if why != self._complained:
                log.error("secret.unusable", file=self._file.name, why=why)
            self._complained = why
            return
        self._held, self._complained = found, ""
        log.info("secret.loaded", file=self._file.name)

    async def follow(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECONDS)
