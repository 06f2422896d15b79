"""One directory of weights for several models and several servers."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pippin_server.engines.base import LoadFailed
from support import webserver
from support.eventually import eventually
from support.sources import FILES, offer, pull
from support.webserver import Files, nothing_wrong, slow_after, status

MODEL = "s3://bucket/tiny"
WEIGHTS = "/bucket/tiny/model.safetensors"


@pytest.fixture
def bucket() -> Iterator[Files]:
    with webserver.files() as running:
        offer(running, "tiny")
        yield running


def environ(bucket: Files) -> dict[str, str]:
    return {"AWS_ENDPOINT_URL": bucket.url}


def downloads(bucket: Files) -> list[str]:
    return [path for _, path, _ in bucket.asked if "?" not in path]


def test_what_is_here_is_not_fetched_again(tmp_path: Path, bucket: Files):
    first = pull(MODEL, tmp_path, environ=environ(bucket))
    bucket.asked.clear()
    again = pull(MODEL, tmp_path, environ=environ(bucket))
    assert (again.path, downloads(bucket)) == (first.path, [])
    assert again.transfer.percent == 100


def test_what_changed_at_the_source_is_another_model(tmp_path: Path, bucket: Files):
    old = pull(MODEL, tmp_path, environ=environ(bucket))
    offer(bucket, "tiny", files={**FILES, "config.json": b'{"model_type": "new"}'})
    bucket.asked.clear()
    new = pull(MODEL, tmp_path, environ=environ(bucket))
    assert downloads(bucket) == ["/bucket/tiny/config.json"]
    assert new.files["config.json"] != old.files["config.json"] == FILES["config.json"]


def test_models_share_the_files_that_are_the_same(tmp_path: Path, bucket: Files):
    offer(bucket, "tiny", "other")
    pull(MODEL, tmp_path, environ=environ(bucket))
    pull("s3://bucket/other", tmp_path, environ=environ(bucket))
    assert len(list((tmp_path / "blobs").iterdir())) == len(FILES)


async def test_two_servers_on_one_directory_fetch_once(tmp_path: Path, bucket: Files):
    bucket.slow = {WEIGHTS: slow_after(1000)}
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(pull, MODEL, tmp_path, environ=environ(bucket)) for _ in range(2)]
        await eventually(lambda: len([p for _, p, _ in bucket.asked if "?" in p]) == 2)
        await eventually(lambda: WEIGHTS in downloads(bucket))
        bucket.slowly.set()
        one, other = [task.result(30) for task in both]
    assert one.path == other.path
    assert sorted(downloads(bucket)) == sorted(f"/bucket/tiny/{name}" for name in FILES)


def test_a_file_that_somebody_cut_off_is_fetched_again(tmp_path: Path, bucket: Files):
    pulled = pull(MODEL, tmp_path, environ=environ(bucket))
    with (pulled.path / "model.safetensors").open("r+b") as file:
        file.truncate(100)
    assert pull(MODEL, tmp_path, environ=environ(bucket)).files == FILES


@pytest.mark.parametrize(
    "planted", ['{"../../x": ["../../../etc/passwd", 1]}', '{"": ["../x", 1]}', "[]", "{"]
)
def test_what_others_write_into_the_directory_leads_nowhere(
    tmp_path: Path, bucket: Files, planted: str
):
    pull(MODEL, tmp_path, environ=environ(bucket))
    for entry in (tmp_path / "index").iterdir():
        entry.write_text(planted)
    assert pull(MODEL, tmp_path, environ=environ(bucket)).files == FILES


def test_one_file_that_cannot_be_had_ends_it_all(tmp_path: Path, bucket: Files):
    bucket.faults = [nothing_wrong, *[status(403)] * 3]
    with pytest.raises(LoadFailed) as failure:
        pull(MODEL, tmp_path, environ=environ(bucket))
    assert failure.value.reason == "ModelSourceUnauthorized"
    assert not list((tmp_path / "models").iterdir())


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path, bucket: Files):
    (tmp_path / "file").write_text("")
    with pytest.raises(LoadFailed) as failure:
        pull(MODEL, tmp_path / "file", environ=environ(bucket))
    assert failure.value.reason == "CacheUnusable"
