"""What every source says of its files, and what all of them have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Protocol

from pippin_contract.addresses import Network

from ...engines.base import LoadFailed
from ...engines.weights import PARTS

#: What an engine here reads; nothing that could run as code.
WANTED = ("*.json", "*.safetensors", "*.jinja", "*.txt", "tokenizer.model", "tiktoken.model")
#: The same of a pipeline: repositories hold its weights once more in one file, for others to read.
OF_PIPELINE = ("*.json", "*.txt", *(f"{part}/*.safetensors" for part in PARTS))
#: Longest path of a file inside a model.
_MAX_NAME = 512

#: Headers that prove who asks for a URL; made anew for each try, since signatures have a time.
Sign = Callable[[str, Mapping[str, str]], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the process lets sources do, and the credentials that it was given."""

    cache: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    #: Bearer token, for sources that know a single one.
    token: str | None = None
    #: Directory with one file for each key of a Secret.
    credentials: Path | None = None
    #: Private networks that every source may lie in.
    networks: tuple[Network, ...] = ()
    #: `host` or `host:port` of registries that speak plain HTTP.
    plain_registries: tuple[str, ...] = ()
    #: Directories below which file:// may name models.
    roots: tuple[Path, ...] = ()
    #: Seconds without a byte after which a connection is given up.
    stall: float = 30.0

    def secret(self, *names: str) -> str | None:
        """The first of these that is a file of the credentials, else in the environment."""
        for name in names:
            if self.credentials is not None:
                try:
                    return (self.credentials / name).read_text().strip() or None
                except FileNotFoundError:
                    pass
                except OSError as error:
                    raise unauthorized(f"{name} of the credentials: {error.strerror}") from error
            if self.environ.get(name):
                return self.environ[name]
        return None


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file to fetch.

    `identity` names these very bytes (address and version); empty when the source cannot say.
    """

    #: Path inside the model, or the name of an archive.
    name: str
    url: str
    identity: str = ""
    size: int | None = None
    sha256: str | None = None
    #: Version by the server's own word; what is answered with another is other content.
    etag: str = ""
    #: Its content is unpacked, and only that is kept.
    archive: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """All files of a model, and how to be let to them."""

    files: Sequence[RemoteFile]
    sign: Sign
    #: The address may be a private one without being allowed by the settings.
    private: bool = False


class Source(Protocol):
    """A model at one address, in words for people, without credentials."""

    where: str

    def files(self) -> Listing:
        """What there is to fetch; blocks. Raises LoadFailed."""
        ...


def unsigned(url: str, headers: Mapping[str, str]) -> Mapping[str, str]:
    """For who asks without credentials."""
    return {}


def wanted(name: str) -> bool:
    return any(fnmatch(name.rpartition("/")[2], pattern) for pattern in WANTED)


def is_safe(name: str) -> bool:
    """A relative path that stays where it is put."""
    parts = name.split("/")
    return (
        len(name) <= _MAX_NAME
        and name.isprintable()
        and "\\" not in name
        and all(part not in ("", ".", "..") for part in parts)
    )


def not_found(message: str) -> LoadFailed:
    return LoadFailed("ModelSourceNotFound", message)


def unauthorized(message: str) -> LoadFailed:
    return LoadFailed("ModelSourceUnauthorized", message)


def unreachable(message: str, *, permanent: bool = False) -> LoadFailed:
    return LoadFailed("ModelSourceUnreachable", message, permanent=permanent)


def corrupted(message: str, *, permanent: bool = True) -> LoadFailed:
    return LoadFailed("ModelCorrupted", message, permanent=permanent)
