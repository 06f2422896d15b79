"""The key with which the gateway signs its requests, as it lies in a mounted Secret now."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from pippin_contract.wire import SIGNING_CURRENT
from pippin_edge.clock import SYSTEM, Clock
from pippin_edge.errors import NotReady
from pippin_edge.tokens import Signer

#: Seconds between two looks at the file: mounted Secrets change by a swapped link.
LOOK_SECONDS = 2.0

log = structlog.get_logger("pippin.signing")


class SigningKey:
    """Tokens from the current key; a new file is taken up by itself, a broken one is not."""

    def __init__(self, directory: Path, clock: Clock = SYSTEM) -> None:
        self._file = directory / SIGNING_CURRENT
        self._clock = clock
        self._pem = b""
        self._signer: Signer | None = None

    @property
    def ready(self) -> bool:
        return self._signer is not None

    def token(self, audience: str, key: str) -> str:
        """Raises errors.NotReady while there is no key."""
        if self._signer is None:
            raise NotReady("the gateway has no signing key yet: try again", retry_after=2)
        return self._signer.token(audience, key)

    def look(self) -> None:
        """Take up the file if it changed."""
        try:
            pem = self._file.read_bytes()
            if pem == self._pem:
                return
            self._signer = Signer(pem, self._clock.wall)
        except (OSError, ValueError) as error:
            log.error("signing.key_unusable", file=self._file.name, why=str(error))
            return
        self._pem = pem
        log.info("signing.key_loaded", file=self._file.name)

    async def follow(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECONDS)
