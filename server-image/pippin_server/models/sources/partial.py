"""A file that is not all here yet, with the version that it is a part of."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

_CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Version:
    """By what the rest is recognised as the rest of the same; a digest if one was promised."""

    etag: str = ""
    sha256: str = ""


class Partial:
    """Its name never is that of a whole file. One writer at a time: see `Cache.locked`."""

    def __init__(self, base: Path) -> None:
        self.path = base.with_name(base.name + ".partial")
        self._about = base.with_name(base.name + ".json")
        self._hash = sha256()
        self.size = 0
        self.version = Version()
        #: Some of it came from an earlier try or an earlier process.
        self.resumed = False
        self._read()

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def begin(self, version: Version) -> None:
        """From nothing."""
        self._about.write_text(json.dumps(asdict(version)))
        self.path.write_bytes(b"")
        self._hash, self.size, self.version, self.resumed = sha256(), 0, version, False

    def append(self, chunk: bytes) -> None:
        with self.path.open("ab", buffering=0) as file:
            file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    def settle(self) -> None:
        """Put all of it on the disk."""
        sync(self.path)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.done()
        self._hash, self.size, self.version = sha256(), 0, Version()

    def done(self) -> None:
        """The file was moved to its place."""
        self._about.unlink(missing_ok=True)

    def _read(self) -> None:
        with suppress(FileNotFoundError, ValueError, TypeError):
            self.version = Version(**json.loads(self._about.read_bytes()))
            with self.path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    self._hash.update(chunk)
                    self.size += len(chunk)
        self.resumed = self.size > 0


def sync(path: Path) -> None:
    """Survives a machine that loses its power."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
