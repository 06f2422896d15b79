"""Who may call: the gateway by its signed token, or the holders of keys from a mounted file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pippin_contract import apikeys
from pippin_contract.serverconfig import AuthConfig
from pippin_edge.clock import Clock
from pippin_edge.keyring import Keyring, Row
from pippin_edge.tokens import Verifier

Verify = Callable[[str], object]


class UnusableKeys(Exception):
    """The keys that were given cannot be used; the words say why."""


def verifier(auth: AuthConfig, keys_file: Path | None, clock: Clock) -> Verify | None:
    """None: nobody is asked. Raises UnusableKeys."""
    if auth.mode == "gateway":
        try:
            tokens = Verifier({key.kid: key.pem for key in auth.public_keys}, auth.audience)
        except ValueError as error:
            raise UnusableKeys(f"auth.publicKeys: {error}") from error
        return lambda token: tokens.verify(token, clock.wall())
    if keys_file is not None:
        ring = Keyring(_rows(keys_file))
        return lambda token: ring.verify(token, clock.wall())
    return None


def _rows(path: Path) -> dict[str, Row[str]]:
    """One key a line; empty lines and lines that begin with # are skipped."""
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except OSError as error:
        raise UnusableKeys(f"api_keys_file: cannot be read: {error.strerror}") from error
    rows = {}
    for number, line in enumerate(lines, start=1):
        if not line or line.startswith("#"):
            continue
        if len(line) < apikeys.MIN_FOREIGN_LENGTH:
            raise UnusableKeys(
                f"api_keys_file: line {number} has fewer than "
                f"{apikeys.MIN_FOREIGN_LENGTH} characters"
            )
        name = apikeys.key_id(line)
        rows[name] = Row(digest=apikeys.digest(line), principal=name)
    if not rows:
        raise UnusableKeys("api_keys_file: no key is in it")
    return rows
