"""The way of a model from its source to an engine that can answer, with its progress told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from pippin_contract import native
from pippin_contract.serverconfig import ModelConfig

from ..engines.base import LoadFailed, Progress
from . import download, integrity


async def locate(
    model: ModelConfig, cache: Path, environ: Mapping[str, str], progress: Progress
) -> Path:
    """The directory with the weights, whole. Raises LoadFailed."""
    if model.path:
        path = native.resolve(model.path, environ)
        if not path.is_dir():
            raise LoadFailed("ModelSourceNotFound", f"{model.path}: no such directory")
    elif model.uri:
        progress(0, "fetching")
        source = download.parse(model.uri)
        token = _token(model.token_file, environ)
        path = await asyncio.to_thread(download.fetch, source, cache, token)
    else:
        raise LoadFailed("ModelSourceNotFound", "neither a path nor a uri of a model is given")
    progress(0, "checking")
    await asyncio.to_thread(check, path, model)
    return path


def check(path: Path, model: ModelConfig) -> None:
    """Raises LoadFailed naming the files at fault."""
    found = integrity.problems(path, chat=model.task == "chat")
    if found:
        raise LoadFailed("ModelCorrupted", "; ".join(found[:5]))


def _token(token_file: str, environ: Mapping[str, str]) -> str | None:
    if not token_file:
        return None
    try:
        return native.resolve(token_file, environ).read_text().strip() or None
    except OSError as error:
        raise LoadFailed(
            "ModelSourceUnauthorized", f"the token file cannot be read: {error.strerror}"
        ) from error
