"""The snapshot on disk: when it is written, when it is read, and what a bad disk does."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from pippin_edge.clock import Clock
from pippin_gateway.catalog import keeper as module
from pippin_gateway.catalog.keeper import CONFIRM, FILE, Keeper
from pippin_gateway.catalog.kinds import KINDS
from pippin_gateway.catalog.store import CatalogStore
from support.eventually import eventually
from support.gateway import key_object, model_object, new_key

DAY = 86400.0


class Machine:
    """A gateway's store and keeper on a disk, with clocks that are moved by hand."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.now = 1_800_000_000.0
        self.key: bytes | None = b"k" * 32
        self.boot()

    def boot(self) -> None:
        """The process starts again."""
        clock = Clock(wall=lambda: self.now, monotonic=lambda: self.now)
        self.store = CatalogStore(clock=clock, max_staleness=DAY)
        self.keeper = Keeper(self.directory, self.store, lambda: self.key, clock)

    def list(self, *keys: dict[str, Any]) -> None:
        """The API server answers."""
        self.store.replace("apikeys", keys)
        self.store.replace("modeldeployments", [model_object()])
        self.store.replace("pods", [])
        self.store.refresh()

    @property
    def file(self) -> Path:
        return self.directory / FILE


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "snapshot")


@pytest.fixture
def log() -> Iterator[list[Any]]:
    with capture_logs() as lines:
        yield lines


@contextlib.asynccontextmanager
async def started(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """A process that waits for nobody, and looks again at once."""
    for name in ("PATIENCE", "AGAIN", "LOOK"):
        monkeypatch.setattr(module, name, 0)
    machine.boot()
    task = asyncio.create_task(machine.keeper.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def written(machine: Machine) -> None:
    machine.list(key_object(new_key()))
    await machine.keeper.keep()
    assert machine.file.exists()


async def test_only_its_owner_may_read_it(machine: Machine) -> None:
    await written(machine)
    assert machine.file.stat().st_mode & 0o777 == 0o600
    assert machine.directory.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in machine.directory.iterdir()] == [FILE]


async def test_nothing_is_written_before_the_cluster_was_seen_whole(machine: Machine) -> None:
    machine.store.replace("apikeys", [])
    await machine.keeper.keep()
    assert not machine.directory.exists()


async def test_it_is_written_when_something_changed_and_else_now_and_then(
    machine: Machine,
) -> None:
    await written(machine)
    first = machine.file.stat().st_ino
    await machine.keeper.keep()
    assert machine.file.stat().st_ino == first
    machine.store.put("apikeys", key_object(new_key(), "other"))
    machine.store.refresh()
    await machine.keeper.keep()
    second = machine.file.stat().st_ino
    assert second != first and machine.keeper.written_at == machine.now
    machine.now += CONFIRM
    await machine.keeper.keep()
    assert machine.file.stat().st_ino != second and machine.keeper.written_at == machine.now


async def test_it_is_never_confirmed_by_one_that_does_not_follow(machine: Machine) -> None:
    await written(machine)
    machine.store.disconnected("pods", "test")
    await machine.keeper.keep()  # says since when
    last = machine.file.stat().st_ino
    machine.now += 10 * CONFIRM
    await machine.keeper.keep()
    assert machine.file.stat().st_ino == last


async def test_a_new_signing_key_signs_it_anew(machine: Machine) -> None:
    await written(machine)
    before = machine.file.read_bytes()
    machine.key = b"x" * 32
    await machine.keeper.keep()
    assert machine.file.read_bytes() != before


async def test_a_start_without_an_api_server_takes_it_and_ages(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written(machine)
    machine.now += 1000
    async with started(machine, monkeypatch):
        await eventually(lambda: machine.store.ready, within=5)
        assert machine.store.restored == set(KINDS)
        assert machine.store.freshness.age() == 1000 and not machine.store.freshness.expired
        machine.now += DAY
        assert machine.store.freshness.expired
        machine.list()
        for kind in KINDS:
            machine.store.connected(kind)
        assert not machine.store.restored and not machine.store.freshness.expired


async def test_a_second_start_does_not_make_it_younger(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written(machine)
    for _ in range(2):
        machine.now += 1000
        async with started(machine, monkeypatch):
            await eventually(lambda: machine.keeper.written_at == machine.now, within=5)
    assert machine.store.freshness.age() == 2000


async def test_what_was_listed_is_not_taken_from_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written(machine)
    async with started(machine, monkeypatch):
        machine.store.replace("apikeys", [])
        await eventually(lambda: machine.store.ready, within=5)
        assert machine.store.restored == {"modeldeployments", "pods"}
        assert len(machine.store.catalog.keyring) == 0 and machine.store.catalog.by_ref


async def test_a_start_with_an_api_server_never_looks_at_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, log: list[Any]
) -> None:
    machine.directory.mkdir()
    machine.file.write_bytes(b"nonsense")
    async with started(machine, monkeypatch):
        machine.list()
        await eventually(lambda: machine.keeper.written_at, within=5)
    assert log == [] and not machine.store.restored


def older(machine: Machine) -> None:
    machine.now += DAY + 1


def from_the_future(machine: Machine) -> None:
    machine.now -= 60


def of_another_key(machine: Machine) -> None:
    machine.key = b"x" * 32


def without_a_key(machine: Machine) -> None:
    machine.key = None


def cut_off(machine: Machine) -> None:
    machine.file.write_bytes(machine.file.read_bytes()[:-20])


def a_link(machine: Machine) -> None:
    machine.file.rename(machine.directory / "elsewhere")
    machine.file.symlink_to("elsewhere")


def a_directory(machine: Machine) -> None:
    machine.file.unlink()
    machine.file.mkdir()


def gone(machine: Machine) -> None:
    machine.file.unlink()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (older, "maxStalenessSeconds"),
        (from_the_future, "clock"),
        (of_another_key, "writes another one"),
        (without_a_key, "no signing key"),
        (cut_off, "damaged"),
        (a_link, "links"),
        (a_directory, "directory"),
        (gone, "waiting for the API server"),
    ],
)
async def test_one_that_is_not_right_is_left_alone_and_told_once(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, log: list[Any], spoil: Any, why: str
) -> None:
    await written(machine)
    spoil(machine)
    async with started(machine, monkeypatch):
        looks = machine.keeper._restore
        count = 0

        async def counted() -> None:
            nonlocal count
            await looks()
            count += 1

        monkeypatch.setattr(machine.keeper, "_restore", counted)
        await eventually(lambda: count >= 3, within=5)
        assert not machine.store.ready
    (line,) = log
    assert why in line["why"]


async def test_a_clock_that_is_put_right_makes_it_good(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written(machine)
    machine.now -= DAY * 365
    async with started(machine, monkeypatch):
        await eventually(lambda: machine.keeper._complained, within=5)
        machine.now += DAY * 365 + 60
        await eventually(lambda: machine.store.ready, within=5)
        assert machine.store.freshness.age() == 60


async def test_a_disk_that_cannot_be_written_is_told_once_and_again_when_it_can(
    machine: Machine, log: list[Any]
) -> None:
    machine.directory.write_text("a file where the directory should be")
    machine.list()
    for _ in range(3):
        await machine.keeper.keep()
    assert machine.keeper.failing and machine.keeper.written_at == 0
    machine.directory.unlink()
    await machine.keeper.keep()
    assert not machine.keeper.failing
    first, second = log
    assert "snapshotDir" in first["why"] and str(machine.directory) not in first["why"]
    assert second["event"] == "snapshot.written_again"


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes nothing more."""

    def fsync(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)


async def test_what_cannot_be_replaced_is_removed_because_it_lets_in_who_was_revoked(
    machine: Machine, request: pytest.FixtureRequest
) -> None:
    await written(machine)
    request.getfixturevalue("full")
    machine.now += CONFIRM
    await machine.keeper.keep()
    assert machine.keeper.failing and machine.file.exists(), "it is still right"
    machine.store.replace("apikeys", [])
    machine.store.refresh()
    await machine.keeper.keep()
    assert list(machine.directory.iterdir()) == []


async def test_what_a_crash_left_half_written_is_in_nobodys_way(machine: Machine) -> None:
    machine.directory.mkdir()
    (machine.directory / "catalog.new").write_bytes(b"half")
    await written(machine)
    assert [file.name for file in machine.directory.iterdir()] == [FILE]
