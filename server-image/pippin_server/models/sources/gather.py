"""All files of a model: from its source, or as far as they are here, into one directory."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path

from ...engines.base import LoadFailed, Progress
from . import archive
from .base import Listing, RemoteFile, Surroundings, not_found, wanted
from .cache import Blob, Cache, Content
from .fetch import Fetcher, Stopped
from .guard import Guard
from .progress import Meter
from .web import Web

#: Files under way at once: one connection seldom fills a link.
_AT_ONCE = 4


def fetcher(around: Surroundings, progress: Progress) -> Fetcher:
    """Raises LoadFailed when the cache cannot be used."""
    try:
        cache = Cache(around.cache)
    except OSError as error:
        raise LoadFailed("CacheUnusable", f"the cache cannot be used: {error.strerror}") from error
    web = Web(Guard(around.networks), around.stall)
    return Fetcher(web, cache, Meter(progress, time.monotonic), threading.Event(), time.sleep)


def gather(where: str, listing: Listing, tools: Fetcher, marker: str = "config.json") -> Path:
    """The directory with the model, which is the one with the `marker`. Raises LoadFailed."""
    sizes = [file.size for file in listing.files]
    known = [size for size in sizes if size is not None]
    tools.meter.expect(sum(known) if len(known) == len(sizes) else None)
    try:
        files = _placed(where, _contents(listing, tools), marker)
        return tools.cache.assemble(_label(where), files)
    except OSError as error:
        raise LoadFailed("CacheUnusable", f"the cache cannot be used: {error.strerror}") from error


def _contents(listing: Listing, tools: Fetcher) -> dict[str, Blob]:
    found: dict[str, Blob] = {}
    with ThreadPoolExecutor(_AT_ONCE, "fetch") as pool:
        tasks = {pool.submit(_content, file, listing, tools): file for file in listing.files}
        done, waiting = wait(tasks, return_when=FIRST_EXCEPTION)
        if any(task.exception() for task in done):
            tools.stop.set()
            for task in waiting:
                task.cancel()
    for task in _worst_first(tasks):
        name = tasks[task].name
        for inner, blob in task.result().items():
            found[inner or name] = blob
    return found


def _worst_first(tasks: Iterable[Future[Content]]) -> list[Future[Content]]:
    """What failed before what was only stopped for it."""
    return sorted(tasks, key=_is_only_stopped)


def _is_only_stopped(task: Future[Content]) -> bool:
    return task.cancelled() or isinstance(task.exception(), Stopped)


def _content(file: RemoteFile, listing: Listing, tools: Fetcher) -> Content:
    if tools.stop.is_set():
        raise Stopped
    found = tools.cache.known(file)
    if found is None:
        with tools.cache.locked(file):
            # Another server may have fetched it in the meantime.
            found = tools.cache.known(file) or _fetched(file, listing, tools)
            return found
    tools.meter.skip(file.size or 0)
    return found


def _fetched(file: RemoteFile, listing: Listing, tools: Fetcher) -> Content:
    blob = tools.blob(file, listing)
    content: Content = {"": blob}
    if file.archive:
        path = tools.cache.path(blob)
        content = archive.unpack(path, file.name, tools.cache)
        path.unlink()
    tools.cache.remember(file, content)
    return content


def _placed(where: str, found: Mapping[str, Blob], marker: str) -> dict[str, Blob]:
    """Without the directories above the model, and without what nobody reads."""
    configs = [name for name in found if name.rpartition("/")[2] == marker]
    if not configs:
        raise not_found(f"{where}: no {marker} is there")
    root = min(configs, key=lambda name: (name.count("/"), name)).removesuffix(marker)
    return {
        name.removeprefix(root): blob
        for name, blob in found.items()
        if name.startswith(root) and wanted(name)
    }


def _label(where: str) -> str:
    last = re.split(r"[/]", where.rstrip("/"))[-1]
    return re.sub(r"[^A-Za-z0-9._-]", "-", last).strip(".-")[:64] or "model"
