"""file:// of a server that stands alone: only what is allowed, wherever links lead."""

from __future__ import annotations

from pathlib import Path

import pytest

from pippin_server.engines.base import LoadFailed
from support.sources import FILES, pull


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Path, ...]:
    for place in ("allowed/tiny", "elsewhere/tiny"):
        (tmp_path / place).mkdir(parents=True)
        for name, content in FILES.items():
            (tmp_path / place / name).write_bytes(content)
    return (tmp_path / "allowed",)


def test_a_directory_below_an_allowed_one_is_used_where_it_lies(tmp_path: Path, roots):
    pulled = pull(f"file://{roots[0]}/tiny", tmp_path / "cache", roots=roots)
    assert pulled.path == roots[0] / "tiny"
    assert pulled.files == FILES


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/elsewhere/tiny", "ModelSourceUnauthorized"),
        ("/allowed/../elsewhere/tiny", "ModelSourceUnauthorized"),
        ("/allowed/%2e%2e/elsewhere/tiny", "ModelSourceUnauthorized"),
        ("/allowed/link", "ModelSourceUnauthorized"),
        ("/allowed/inside", "ModelSourceUnauthorized"),
        ("/allowed/nothing", "ModelSourceNotFound"),
    ],
)
def test_what_leaves_it_is_refused(tmp_path: Path, roots, path: str, reason: str):
    (tmp_path / "allowed/link").symlink_to(tmp_path / "elsewhere/tiny")
    (tmp_path / "allowed/inside").mkdir()
    (tmp_path / "allowed/inside/config.json").symlink_to(tmp_path / "elsewhere/tiny/config.json")
    with pytest.raises(LoadFailed) as failure:
        pull(f"file://{tmp_path}{path}", tmp_path / "cache", roots=roots)
    assert failure.value.reason == reason


@pytest.mark.parametrize("uri", ["file://host/x", "file://", "file:///etc"])
def test_without_allowed_directories_there_are_none(tmp_path: Path, uri: str):
    with pytest.raises(LoadFailed):
        pull(uri, tmp_path)
