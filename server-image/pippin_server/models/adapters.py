"""A LoRA adapter on its way from its source to a directory that is whole."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pippin_contract import native
from pippin_contract.serverconfig import AdapterConfig

from ..engines.adapters import CONFIG, about, describe, unusable
from ..engines.base import LoadFailed, Progress
from . import integrity, loader
from .sources.base import Surroundings, not_found


async def locate(adapter: AdapterConfig, around: Surroundings, progress: Progress) -> Path:
    """Raises LoadFailed, with the adapter's name in its words."""
    with about(adapter.name):
        path = await asyncio.to_thread(_directory, adapter, around, progress)
        await asyncio.to_thread(check, path)
    return path


def _directory(adapter: AdapterConfig, around: Surroundings, progress: Progress) -> Path:
    if not adapter.path:
        return loader.fetch(adapter.uri, around, progress, marker=CONFIG)
    path = native.resolve(adapter.path, around.environ)
    if not path.is_dir():
        raise not_found(f"{adapter.path}: no such directory")
    return path


def check(path: Path) -> None:
    """Without reading weights. Raises LoadFailed naming the file at fault."""
    told = describe(path)
    try:
        integrity.tensor_names(told.weights)
    except integrity.Damaged as error:
        raise unusable(str(error)) from error


def problem(adapter: AdapterConfig, path: Path) -> LoadFailed | None:
    """Of one that lies here."""
    try:
        with about(adapter.name):
            check(path)
    except LoadFailed as failure:
        return failure
    return None
