"""What is in a tar or a zip, as files of the cache; nothing else of it reaches the disk.

Wanted files are written under names of ours and linked later, so that no name inside an archive
ever decides where something is written. Names that try are refused all the same.
"""

from __future__ import annotations

import gzip
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Self

from .base import corrupted, is_safe, wanted
from .cache import Blob, Cache
from .partial import sync

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")
_CHUNK = 1024 * 1024
_SPOILED = (EOFError, zlib.error, gzip.BadGzipFile)
#: Chunks of nothing after the end of a tar.
_PADDING = 64
_MOST_FILES = 100_000
#: What a small archive may grow to, and how often a large one may grow beyond itself.
_ROOM, _GROWTH = 1024**3, 50


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    size: int
    regular: bool
    content: IO[bytes] | None


class _Unfit(Exception):
    """Not unpacked, and why."""


def unpack(path: Path, name: str, cache: Cache) -> dict[str, Blob]:
    """The wanted files of an archive, adopted by the cache. Raises LoadFailed, OSError."""
    room = max(_ROOM, _GROWTH * path.stat().st_size)
    found: dict[str, Blob] = {}
    try:
        with cache.workshop() as workshop:
            for entry in _entries(path):
                room -= entry.size
                if room < 0:
                    raise _Unfit("unpacked it is far larger than it should be")
                if not _is_taken(entry):
                    continue
                found[entry.name] = _adopt(entry, workshop / str(len(found)), cache)
    except (_Unfit, tarfile.TarError, zipfile.BadZipFile, *_SPOILED) as error:
        raise corrupted(f"{name}: {error}") from error
    except (NotImplementedError, RuntimeError) as error:
        # What zipfile says of ways to pack, and of passwords, that it does not know.
        raise corrupted(f"{name}: it cannot be unpacked: {error}") from error
    return found


def _entries(path: Path) -> Iterator[_Entry]:
    source = _zipped(path) if zipfile.is_zipfile(path) else _tarred(path)
    for count, entry in enumerate(source):
        if count >= _MOST_FILES:
            raise _Unfit(f"more than {_MOST_FILES} files")
        yield entry


def _tarred(path: Path) -> Iterator[_Entry]:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    with tarfile.open(path, "r:gz" if packed else "r:", tarinfo=_Member) as archive:
        for member in archive:
            name = _name(member.name, member.isdir())
            content = archive.extractfile(member) if member.isreg() else None
            yield _Entry(name, member.size, member.isreg() or member.isdir(), content)
        _to_the_end(archive)


class _Member(tarfile.TarInfo):
    """tarfile takes an archive that is cut off between two members for one that ends there."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined] # not in its stubs
            raise
        except tarfile.HeaderError as error:
            raise _Unfit("it is cut off, or no tar") from error


def _to_the_end(archive: tarfile.TarFile) -> None:
    """What was packed has its checksum there."""
    assert archive.fileobj is not None
    for _ in range(_PADDING):
        if not archive.fileobj.read(_CHUNK):
            return
    raise _Unfit("something comes after its end")


def _zipped(path: Path) -> Iterator[_Entry]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            mode = info.external_attr >> 16
            regular = stat.S_IFMT(mode) in (0, stat.S_IFREG) or info.is_dir()
            name = _name(info.filename, info.is_dir())
            if not regular or info.is_dir():
                yield _Entry(name, 0, regular, None)
                continue
            with archive.open(info) as content:
                yield _Entry(name, info.file_size, True, content)


def _name(name: str, directory: bool) -> str:
    """As it is written in archives: `./a`, `a/` for a directory."""
    while name.startswith("./"):
        name = name[2:]
    name = name.rstrip("/") if directory else name
    if name not in ("", ".") and not is_safe(name):
        raise _Unfit(f"{name!r} leads out of it")
    return name


def _is_taken(entry: _Entry) -> bool:
    if not wanted(entry.name):
        return False
    if not entry.regular:
        raise _Unfit(f"{entry.name} is a link or a device")
    return entry.content is not None


def _adopt(entry: _Entry, path: Path, cache: Cache) -> Blob:
    assert entry.content is not None
    digest, size = sha256(), 0
    with path.open("xb") as file:
        while chunk := entry.content.read(_CHUNK):
            size += len(chunk)
            if size > entry.size:
                raise _Unfit(f"{entry.name} is larger than it says")
            digest.update(chunk)
            file.write(chunk)
    if size != entry.size:
        raise _Unfit(f"{entry.name} is cut off")
    sync(path)
    blob = Blob(digest.hexdigest(), size)
    cache.adopt(path, blob)
    return blob
