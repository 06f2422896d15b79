"""Volumes laid out as files, replaced at once, linked into the Pod's root."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest

from pippin_node.records import PodDir
from pippin_node.volumes import File, Layout, MountError, write

FACTS = {"cpu": "8", "memory": "1024", "hostIP": "127.0.0.1"}


class FakeSource:
    """ConfigMaps and Secrets by name; tokens that say for whom they are."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}

    async def object(self, kind: str, name: str) -> dict[str, Any] | None:
        return self.objects.get((kind, name))

    async def token(self, audience: str, seconds: int) -> str:
        return f"token for {audience or 'the API server'}, {seconds} s"


@pytest.fixture
def source() -> FakeSource:
    fake = FakeSource()
    fake.objects[("configmap", "c")] = {"data": {"a": "1", "b": "2"}}
    secret = base64.b64encode(b"hush").decode()
    fake.objects[("secret", "s")] = {"data": {"key": secret}}
    return fake


@pytest.fixture
def pod_dir(tmp_path: Path) -> PodDir:
    return PodDir(tmp_path / "pod")


async def lay_out(
    source: FakeSource,
    pod_dir: PodDir,
    volume: dict[str, Any],
    *mounts: dict[str, Any],
    allowed: Path | None = None,
) -> Path:
    """Lay the volume `v` out, at /v unless mounts are given; where it shows."""
    places = list(mounts) or [{"mountPath": "/v"}]
    containers = [{"name": "c", "volumeMounts": [{"name": "v", **place} for place in places]}]
    pod = {
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {}},
        "spec": {"containers": containers, "volumes": [{"name": "v", **volume}]},
    }
    pod_dir.prepare(pod)
    await Layout(pod, source, FACTS, (allowed,) if allowed else ()).lay_out(pod_dir)
    return pod_dir.root / "v"


async def test_a_config_map_becomes_files(source: FakeSource, pod_dir: PodDir) -> None:
    shown = await lay_out(source, pod_dir, {"configMap": {"name": "c"}})
    assert (shown / "a").read_text() == "1"
    assert (shown / "b").read_text() == "2"


async def test_items_choose_and_rename(source: FakeSource, pod_dir: PodDir) -> None:
    items = [{"key": "a", "path": "deep/er", "mode": 0o400}]
    shown = await lay_out(source, pod_dir, {"configMap": {"name": "c", "items": items}})
    assert (shown / "deep" / "er").read_text() == "1"
    assert not (shown / "b").exists()
    assert (shown / "deep" / "er").stat().st_mode & 0o777 == 0o400


async def test_secrets_and_tokens_are_for_their_owner_only(
    source: FakeSource, pod_dir: PodDir
) -> None:
    token = {"path": "token", "audience": "vault", "expirationSeconds": 700}
    parts = [{"secret": {"name": "s"}}, {"serviceAccountToken": token}]
    shown = await lay_out(source, pod_dir, {"projected": {"sources": parts, "defaultMode": 0o777}})
    assert (shown / "key").read_text() == "hush"
    assert (shown / "token").read_text() == "token for vault, 700 s"
    assert (shown / "key").stat().st_mode & 0o077 == 0
    assert (shown / "token").stat().st_mode & 0o777 == 0o600


async def test_what_is_missing_is_named_unless_it_is_optional(
    source: FakeSource, pod_dir: PodDir
) -> None:
    with pytest.raises(MountError, match='volume "v" : secret "gone" not found'):
        await lay_out(source, pod_dir, {"secret": {"secretName": "gone"}})
    items = [{"key": "nope", "path": "x"}]
    with pytest.raises(MountError, match="references non-existent configmap key: nope"):
        await lay_out(source, pod_dir, {"configMap": {"name": "c", "items": items}})
    optional = {"secret": {"secretName": "gone", "optional": True}}
    shown = await lay_out(source, pod_dir, optional)
    assert [path.name for path in shown.iterdir() if not path.name.startswith("..")] == []


async def test_a_path_cannot_leave_its_volume(source: FakeSource, pod_dir: PodDir) -> None:
    items = [{"key": "a", "path": "../../escaped"}]
    with pytest.raises(MountError, match="invalid path"):
        await lay_out(source, pod_dir, {"configMap": {"name": "c", "items": items}})


async def test_an_update_replaces_all_files_and_drops_what_is_gone(
    source: FakeSource, pod_dir: PodDir
) -> None:
    volume = {"configMap": {"name": "c"}}
    shown = await lay_out(source, pod_dir, volume)
    before = os.readlink(shown / "..data")
    source.objects[("configmap", "c")] = {"data": {"a": "new", "c": "3"}}
    await lay_out(source, pod_dir, volume)
    assert {p.name for p in shown.iterdir() if not p.name.startswith("..")} == {"a", "c"}
    assert (shown / "a").read_text() == "new"
    assert os.readlink(shown / "..data") != before
    assert not (shown / before).exists()


async def test_the_same_content_is_not_written_again(tmp_path: Path) -> None:
    files = {"a": File(b"1", 0o600), "d/b": File(b"2", 0o400)}
    assert write(tmp_path / "v", files)
    assert not write(tmp_path / "v", files)
    assert write(tmp_path / "v", {"a": File(b"1", 0o400)})


async def test_a_sub_path_shows_one_part(source: FakeSource, pod_dir: PodDir) -> None:
    place = {"mountPath": "/etc/one.conf", "subPath": "a"}
    await lay_out(source, pod_dir, {"configMap": {"name": "c"}}, place)
    assert (pod_dir.root / "etc" / "one.conf").read_text() == "1"


async def test_an_empty_dir_is_one_directory_at_all_its_paths(
    source: FakeSource, pod_dir: PodDir
) -> None:
    places = [{"mountPath": "/x"}, {"mountPath": "/tmp"}]
    await lay_out(source, pod_dir, {"emptyDir": {"sizeLimit": "1Gi"}}, *places)
    (pod_dir.root / "x" / "file").write_text("shared")
    assert (pod_dir.root / "tmp" / "file").read_text() == "shared"


async def test_removing_a_pod_leaves_the_hosts_files(
    source: FakeSource, pod_dir: PodDir, tmp_path: Path
) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "weights").write_text("w")
    volume = {"hostPath": {"path": str(tmp_path / "host")}}
    shown = await lay_out(source, pod_dir, volume, allowed=tmp_path)
    assert (shown / "weights").read_text() == "w"
    pod_dir.remove()
    assert not pod_dir.path.exists()
    assert (tmp_path / "host" / "weights").read_text() == "w"


async def test_a_host_path_cannot_lead_out_by_a_link(
    source: FakeSource, pod_dir: PodDir, tmp_path: Path
) -> None:
    (tmp_path / "allowed").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "allowed" / "link").symlink_to(tmp_path / "secret")
    volume = {"hostPath": {"path": str(tmp_path / "allowed" / "link")}}
    with pytest.raises(MountError, match="leads out"):
        await lay_out(source, pod_dir, volume, allowed=tmp_path / "allowed")


async def test_a_host_path_of_the_wrong_type_is_said(
    source: FakeSource, pod_dir: PodDir, tmp_path: Path
) -> None:
    volume = {"hostPath": {"path": str(tmp_path / "absent"), "type": "Directory"}}
    with pytest.raises(MountError, match="hostPath type check failed: .*absent is not a directory"):
        await lay_out(source, pod_dir, volume, allowed=tmp_path)
