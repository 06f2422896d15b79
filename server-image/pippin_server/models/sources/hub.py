"""`hf://organisation/name@revision`: a repository of a Hugging Face hub, by its own client."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...engines.base import LoadFailed
from .base import WANTED, not_found, unauthorized, unreachable
from .progress import Meter

_URI = re.compile(r"hf://([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?\Z")
#: Further tries when the hub cannot be reached, and the seconds before the first of them.
_RETRIES, _PAUSE = 3, 0.1
#: The bar that counts what is written; another counts what is received, and one counts files.
_BYTES = "huggingface_hub.snapshot_download"


@dataclass(frozen=True, slots=True)
class Repository:
    """`hf://org/name@revision`. `wanted`: patterns of the files that are fetched."""

    name: str
    revision: str
    wanted: tuple[str, ...] = WANTED


def parse(uri: str, wanted: tuple[str, ...] = WANTED) -> Repository:
    """Raises LoadFailed when the uri is not one of ours."""
    match = _URI.match(uri)
    if match is None:
        raise not_found(f"{uri!r} is no source: write hf://organisation/name@revision")
    return Repository(name=match[1], revision=match[2] or "main", wanted=wanted)


def fetch(
    source: Repository,
    cache: Path,
    token: str | None,
    meter: Meter,
    sleep: Callable[[float], object] = time.sleep,
) -> Path:
    """The directory with the model; blocks. Raises LoadFailed, with words for the status."""
    for failures in range(_RETRIES):
        try:
            return _fetch(source, cache, token, meter)
        except LoadFailed as failure:
            if failure.permanent:
                raise
        sleep(_PAUSE * 2**failures)
    return _fetch(source, cache, token, meter)


def _fetch(source: Repository, cache: Path, token: str | None, meter: Meter) -> Path:
    # Imported late: only models from a hub pay for it.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"{source.name}@{source.revision}"
    try:
        found = snapshot_download(
            source.name,
            revision=source.revision,
            cache_dir=cache,
            token=token or False,
            allow_patterns=list(source.wanted),
            tqdm_class=_bars(meter),
        )
    except GatedRepoError as error:
        raise _unauthorized(where, token) from error
    except RevisionNotFoundError as error:
        raise not_found(f"{where}: no such revision") from error
    except RepositoryNotFoundError as error:
        # A hub says so too for what it hides from this token.
        if _status(error) in (401, 403):
            raise _unauthorized(where, token) from error
        raise not_found(f"{where}: no such model") from error
    except LocalEntryNotFoundError as error:
        raise _unreachable(where) from error
    except HfHubHTTPError as error:
        if _status(error) in (401, 403):
            raise _unauthorized(where, token) from error
        raise _unreachable(where) from error
    except OSError as error:
        raise _unreachable(where) from error
    return Path(found)


def _bars(meter: Meter) -> type[Any]:
    """The client tells progress bars; this one draws nothing and tells the meter."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    class Bar(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self._counts = options.pop("name", None) == _BYTES
            super().__init__(*arguments, **{**options, "disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            if self._counts:
                meter.expect(int(self.total) if self.total else None)
                meter.add(int(n or 0))

    return Bar


def _status(error: Exception) -> int | None:
    response = getattr(error, "response", None)
    return getattr(response, "status_code", None)


def _unauthorized(where: str, token: str | None) -> LoadFailed:
    advice = "the token has no right to it" if token else "it needs a token: credentialsSecretRef"
    return unauthorized(f"{where}: {advice}")


def _unreachable(where: str) -> LoadFailed:
    return unreachable(f"{where}: the hub cannot be reached")
