"""The way of a model from its source to an engine that can answer, with its progress told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pippin_contract import native
from pippin_contract.serverconfig import ModelConfig

from ..engines.base import LoadFailed, Progress
from ..engines.weights import PIPELINE
from . import inspection, integrity
from .sources import hub, local
from .sources.base import OF_PIPELINE, WANTED, Source, Surroundings, not_found
from .sources.fetch import Fetcher
from .sources.gather import fetcher, gather
from .sources.https import Archive
from .sources.oci import Artifact
from .sources.progress import Meter
from .sources.s3 import Objects

_FETCHED: dict[str, Callable[[str, Surroundings, Fetcher], Source]] = {
    "s3": Objects,
    "oci": Artifact,
    "https": Archive,
}


async def locate(model: ModelConfig, around: Surroundings, progress: Progress) -> Path:
    """The directory with the weights, whole. Raises LoadFailed."""
    if model.path:
        path = native.resolve(model.path, around.environ)
        if not path.is_dir():
            raise not_found(f"{model.path}: no such directory")
    elif model.uri:
        progress(0, "fetching")
        marker = inspection.marker(model.task)
        path = await asyncio.to_thread(fetch, model.uri, around, progress, marker=marker)
    else:
        raise not_found("neither a path nor a uri of a model is given")
    progress(0, "checking")
    await asyncio.to_thread(check, path, model)
    return path


def check(path: Path, model: ModelConfig) -> None:
    """Raises LoadFailed naming the files at fault."""
    found = inspection.problems(path, model.task)
    if found:
        raise LoadFailed("ModelCorrupted", "; ".join(found[:5]))


def fetch(
    uri: str, around: Surroundings, progress: Progress, *, marker: str = integrity.CONFIG
) -> Path:
    """The directory with the weights of a uri, the one with the `marker`; blocks. Raises
    LoadFailed."""
    scheme = uri.partition("://")[0]
    if scheme == "file":
        return local.directory(uri, around)
    if scheme not in _FETCHED:
        meter = Meter(progress, time.monotonic)
        files = OF_PIPELINE if marker == PIPELINE else WANTED
        return hub.fetch(hub.parse(uri, files), around.cache, around.token, meter)
    tools = fetcher(around, progress)
    source = _FETCHED[scheme](uri, around, tools)
    return gather(source.where, source.files(), tools, marker)


def token(token_file: str, environ: Mapping[str, str]) -> str | None:
    """The credential in a file; None when there is none. Raises LoadFailed."""
    if not token_file:
        return None
    try:
        return native.resolve(token_file, environ).read_text().strip() or None
    except OSError as error:
        raise LoadFailed(
            "ModelSourceUnauthorized", f"the token file cannot be read: {error.strerror}"
        ) from error
