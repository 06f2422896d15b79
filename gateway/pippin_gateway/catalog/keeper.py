"""The snapshot on disk: written while the cluster is followed, read by a start that cannot list.

A disk that cannot be written to is told once, and nothing else suffers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import structlog

from pippin_edge.clock import SYSTEM, Clock

from . import snapshot
from .kinds import Kind, Known
from .store import CatalogStore

FILE = "catalog.snapshot"
#: Seconds that a start waits for the real list.
PATIENCE = 3.0
#: Seconds between two looks: at the list while starting, at a snapshot that was not usable, at
#: what has changed.
LOOK, AGAIN, PAUSE = 0.1, 10.0, 2.0
#: Seconds after which a snapshot is written again to say that nothing has changed.
CONFIRM = 300.0
#: Writing takes this part of the time at most.
SHARE = 0.1

_MEND = "give the directory of snapshotDir room; until then a restart needs the API server"

log = structlog.get_logger("pippin.snapshot")

#: What a snapshot on disk says: which catalog, which kinds were not followed, by which key.
_State = tuple[int, frozenset[Kind], bytes]


class Keeper:
    """Of one directory. `key` is what snapshots are signed with."""

    def __init__(
        self,
        directory: Path,
        store: CatalogStore,
        key: Callable[[], bytes | None],
        clock: Clock = SYSTEM,
    ) -> None:
        self._file = directory / FILE
        self._store = store
        self._key = key
        self._clock = clock
        self._writing = asyncio.Lock()
        self._state: _State | None = None
        self._due = 0.0
        self._complained = ""
        #: When the last one was written (Unix seconds), and whether it cannot be now.
        self.written_at = 0.0
        self.failing = False

    async def run(self) -> None:
        """Until cancelled."""
        await self._wait_for_a_catalog()
        while True:
            began = self._clock.monotonic()
            await self.keep()
            took = self._clock.monotonic() - began
            await asyncio.sleep(max(PAUSE, took / SHARE))

    async def keep(self) -> None:
        """Write what is known, if the disk does not hold it."""
        async with self._writing:
            key, store = self._key(), self._store
            if key is None or not store.ready:
                return
            state = (store.revision, frozenset(store.stale_since), key)
            if state == self._state and not self._confirms(state):
                return
            same = self._state is not None and self._state[0] == state[0]
            if await asyncio.to_thread(self._write, store.known(), key, same):
                self._state, self._due = state, self._clock.monotonic() + CONFIRM

    def _confirms(self, state: _State) -> bool:
        """Whether it is time to say that all is as before."""
        return not state[1] and self._clock.monotonic() >= self._due

    def _write(self, known: Known, key: bytes, same: bool) -> bool:
        try:
            _replace(self._file, snapshot.encode(known, key))
        except (OSError, snapshot.TooLarge) as error:
            if not same:  # it may let in a key that was revoked since
                with contextlib.suppress(OSError):
                    self._file.unlink(missing_ok=True)
            self.failing = True
            self._complain("snapshot.not_written", f"{_words(error)}: {_MEND}")
            return False
        if self.failing:
            log.info("snapshot.written_again")
        self.written_at, self.failing, self._complained = self._clock.wall(), False, ""
        return True

    async def _wait_for_a_catalog(self) -> None:
        """From the API server; from disk when it lets us wait."""
        try_at = self._clock.monotonic() + PATIENCE
        while not self._store.ready:
            if self._clock.monotonic() >= try_at:
                await self._restore()
                try_at = self._clock.monotonic() + AGAIN
            await asyncio.sleep(LOOK)

    async def _restore(self) -> None:
        try:
            known = await asyncio.to_thread(self._read)
        except FileNotFoundError:
            return self._complain("snapshot.none", "there is none: waiting for the API server")
        except OSError as error:
            why = f"{_words(error)}: see that the gateway can read the directory of snapshotDir"
            return self._complain("snapshot.not_used", why)
        except snapshot.Unusable as error:
            return self._complain("snapshot.not_used", str(error))
        if not self._store.ready:
            self._store.restore(known)
            age = round(self._store.freshness.age(), 1)
            log.warning("snapshot.restored", age_seconds=age, why="the API server does not answer")

    def _read(self) -> Known:
        key = self._key()
        if key is None:
            raise snapshot.Unusable("there is no signing key yet to check it with")
        with os.fdopen(os.open(self._file, os.O_RDONLY | os.O_NOFOLLOW), "rb") as opened:
            raw = opened.read(snapshot.MAX_BYTES + 1024)
        known = snapshot.decode(raw, key)
        snapshot.require_young(known, self._clock.wall(), self._store.freshness.most)
        return known

    def _complain(self, event: str, why: str) -> None:
        if why != self._complained:
            log.warning(event, why=why)
        self._complained = why


def _replace(file: Path, content: bytes) -> None:
    """All or nothing, also when the power goes."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = file.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(fresh, flags, 0o600), "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        fresh.replace(file)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _words(error: Exception) -> str:
    return str(error.strerror if isinstance(error, OSError) else error)
