"""Weights on disk, by their content: shared by models, and by servers that share the directory.

blobs/<sha256>          whole files; moved here once their bytes are on the disk
partial/<key>           what there is of a file so far, and beside it of which version
index/<key>             which blobs an address and version turned out to be
models/<name>-<digest>/ one model: links to blobs
locks/<key>             held by who fetches; a dead process holds none
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from .base import RemoteFile, is_safe
from .partial import Partial, sync

_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Blob:
    """A whole file, by what is in it."""

    sha256: str
    size: int


#: What came of a file: itself under the empty name, or all that was unpacked of it.
Content = Mapping[str, Blob]


class Cache:
    """All methods block. Raise OSError when the directory cannot be used."""

    def __init__(self, root: Path) -> None:
        self._root = root
        for part in ("blobs", "partial", "index", "models", "locks"):
            (root / part).mkdir(parents=True, exist_ok=True)

    def known(self, file: RemoteFile) -> Content | None:
        """What is here of the file, when all of it is."""
        if file.sha256 and file.size is not None and not file.archive:
            found: Content = {"": Blob(file.sha256, file.size)}
        else:
            found = self._remembered(file)
        return found if found and all(map(self.holds, found.values())) else None

    def holds(self, blob: Blob) -> bool:
        try:
            return self.path(blob).stat().st_size == blob.size
        except FileNotFoundError:
            return False

    def path(self, blob: Blob) -> Path:
        return self._root / "blobs" / blob.sha256

    def free(self) -> int:
        return shutil.disk_usage(self._root).free

    @contextmanager
    def locked(self, file: RemoteFile) -> Iterator[None]:
        """Alone with this file, of all processes that use the directory."""
        with (self._root / "locks" / _key(file)).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def partial(self, file: RemoteFile) -> Partial:
        """What there is of it so far. Only for who holds the lock."""
        return Partial(self._root / "partial" / _key(file))

    def adopt(self, path: Path, blob: Blob) -> None:
        """Move a file here whose bytes are on the disk already."""
        path.replace(self.path(blob))
        sync(self._root / "blobs")

    def remember(self, file: RemoteFile, content: Content) -> None:
        """So that the next start needs to ask for nothing of it."""
        if file.identity:
            known = {name: [blob.sha256, blob.size] for name, blob in content.items()}
            self._write(self._root / "index" / _key(file), json.dumps(known).encode())

    @contextmanager
    def workshop(self) -> Iterator[Path]:
        """A directory for files that are about to be adopted; gone afterwards."""
        with tempfile.TemporaryDirectory(dir=self._root / "partial") as name:
            yield Path(name)

    def assemble(self, label: str, files: Mapping[str, Blob]) -> Path:
        """The directory of a model with these files."""
        told = "".join(f"{name}\0{files[name].sha256}\n" for name in sorted(files))
        final = self._root / "models" / f"{label}-{sha256(told.encode()).hexdigest()[:16]}"
        if final.is_dir():
            return final
        fresh = Path(tempfile.mkdtemp(prefix=".", dir=self._root / "models"))
        for name, blob in files.items():
            link = fresh / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(self.path(blob), link.parent))
        fresh.chmod(0o755)
        try:
            fresh.rename(final)
        except OSError:
            shutil.rmtree(fresh)
            if not final.is_dir():  # else another server was faster, with the same
                raise
        return final

    def _remembered(self, file: RemoteFile) -> Content:
        if not file.identity:
            return {}
        try:
            told = json.loads((self._root / "index" / _key(file)).read_bytes())
            found = {str(name): Blob(str(one[0]), int(one[1])) for name, one in told.items()}
        except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
            return {}
        # Others may write to a shared directory; nothing in it leads out of it.
        good = all(_HEX.fullmatch(b.sha256) and (n == "" or is_safe(n)) for n, b in found.items())
        return found if good else {}

    def _write(self, path: Path, content: bytes) -> None:
        fd, name = tempfile.mkstemp(dir=self._root / "partial")
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)


def _key(file: RemoteFile) -> str:
    named = file.identity or file.sha256 or file.url
    return sha256(named.encode()).hexdigest()
