"""The gateway is tested on the event loop that it runs on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import uvloop
import yaml
from cluster.controlplane import ControlPlane

from pippin_contract import wire
from support.certificates import Authority
from support.gateway import Running, running_gateway
from support.gateway_world import World
from support.redis import Redis, running_redis

CRDS = Path(__file__).parents[2] / "crds"


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], object]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Running]:
    """Short times, so that what hangs is late soon."""
    async with running_gateway(
        tmp_path,
        connect_timeout_seconds=0.5,
        queue_timeout_seconds=0.5,
        first_token_timeout_seconds=0.5,
        stream_idle_timeout_seconds=0.5,
        total_timeout_seconds=3,
    ) as running:
        yield running


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who vouches for providers outside."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def plane(control_plane: ControlPlane) -> ControlPlane:
    """With Pippin's kinds, and nothing in it that gateways look at: the tests of another layer may
    have used it before."""
    for file in sorted(CRDS.glob("*.yaml")):
        for crd in yaml.safe_load_all(file.read_text()):
            control_plane.api.ensure("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
    _empty(control_plane, "/api/v1", "pods")
    for plural in (wire.MODELDEPLOYMENTS, wire.APIKEYS):
        _empty(control_plane, f"/apis/{wire.GROUP}/{wire.VERSION}", plural)
    return control_plane


def _empty(plane: ControlPlane, group: str, plural: str) -> None:
    if not plane.api.ok(f"{group}/{plural}"):
        return  # a kind that was made just now, and is not served yet
    for found in plane.api.get(f"{group}/{plural}")["items"]:
        meta = found["metadata"]
        plane.api.delete(f"{group}/namespaces/{meta['namespace']}/{plural}/{meta['name']}")


@pytest.fixture
def world(plane: ControlPlane) -> Iterator[World]:
    """Alone in the cluster: what it made is gone before the next test."""
    made = World(plane)
    yield made
    for collection in (made.pods, made.keys, made.models):
        plane.api.delete(collection)


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[Redis]:
    async with running_redis(tmp_path) as running:
        yield running
