"""The key with which the gateway signs its requests, as it lies in a mounted Secret now."""

from __future__ import annotations

from pathlib import Path

from pippin_contract.wire import SIGNING_CURRENT
from pippin_edge.clock import SYSTEM, Clock
from pippin_edge.errors import NotReady
from pippin_edge.tokens import Signer

from .secretfile import SecretFile


class SigningKey:
    """Tokens from the current key."""

    def __init__(self, directory: Path, clock: Clock = SYSTEM) -> None:
        self.file = SecretFile(directory / SIGNING_CURRENT, self._take)
        self._clock = clock
        self._signer: Signer | None = None
        self._derived: dict[bytes, bytes] = {}

    @property
    def ready(self) -> bool:
        return self._signer is not None

    def token(self, audience: str, key: str, *, batch: bool) -> str:
        """Raises errors.NotReady while there is no key."""
        if self._signer is None:
            raise NotReady("the gateway has no signing key yet: try again", retry_after=2)
        return self._signer.token(audience, key, batch=batch)

    def derived(self, purpose: bytes) -> bytes | None:
        """A secret of the same key for another purpose; None while there is no key."""
        if purpose not in self._derived and self._signer is not None:
            self._derived[purpose] = self._signer.derived(purpose)
        return self._derived.get(purpose)

    def _take(self, pem: bytes) -> None:
        self._signer, self._derived = Signer(pem, self._clock.wall), {}
