"""Weights from a real S3 server: listed, signed, resumed, and every refusal told apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pippin_contract.serverconfig import ModelConfig
from pippin_server.engines.base import LoadFailed
from pippin_server.models.sources import s3 as objects
from support import webserver
from support.eventually import eventually
from support.s3 import S3, s3
from support.servers import mlx_config, serving
from support.sources import FILES, offer, pull
from support.webserver import slow_after

BUCKET = "models"
LOOPBACK_TOO = {"PIPPIN_SERVER_PRIVATE_NETWORKS": '["127.0.0.0/8"]'}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[S3]:
    tiny = {f"team a/tiny/{path.name}": path.read_bytes() for path in tiny_model.iterdir()}
    code = {"team a/tiny/modeling_tiny.py": b"import os", "team a/tiny2/config.json": b"{}"}
    many = {f"many/shard-{number}.json": b"%d" % number for number in range(6)}
    with s3(tmp_path_factory.mktemp("s3")) as running:
        running.put(BUCKET, {**tiny, **code, **many, "many/config.json": b"{}"})
        yield running


@pytest.fixture
def secret(tmp_path: Path, store: S3) -> Path:
    return store.credentials(tmp_path / "secret")


def contents(model: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in model.iterdir()}


async def test_a_server_fetches_from_s3_with_the_keys_of_its_secret(
    tmp_path: Path, secret: Path
) -> None:
    model = ModelConfig(uri=f"s3://{BUCKET}/team a/tiny", credentials_dir=str(secret))
    config = mlx_config(Path("unused")).model_copy(update={"model": model})
    env = {"PIPPIN_SERVER_CACHE_DIR": str(tmp_path / "cache"), **LOOPBACK_TOO}
    async with serving(tmp_path, config, env=env) as server:
        answer = await server.post(
            "/v1/completions", {"model": "tiny", "prompt": "hello", "max_tokens": 3}
        )
        assert answer.status_code == 200
    assert list((tmp_path / "cache").rglob("model.safetensors"))


async def test_a_server_that_is_killed_while_it_fetches_costs_only_the_rest(
    tmp_path: Path, tiny_model: Path
) -> None:
    path, weights = "/bucket/tiny/model.safetensors", contents(tiny_model)["model.safetensors"]
    half = len(weights) // 2
    model = ModelConfig(uri="s3://bucket/tiny")
    config = mlx_config(Path("unused")).model_copy(update={"model": model})
    env = {"PIPPIN_SERVER_CACHE_DIR": str(tmp_path / "cache"), **LOOPBACK_TOO}
    files = contents(tiny_model)
    total = sum(map(len, files.values()))
    with webserver.files() as bucket:
        offer(bucket, "tiny", files=files)
        bucket.slow = {path: slow_after(half)}
        env["AWS_ENDPOINT_URL"] = bucket.url
        async with serving(tmp_path, config, wait="up", env=env) as server:

            async def progress() -> dict[str, object]:
                found: dict[str, object] = (await server.get("/health")).json()["progress"]
                return found

            wanted = total - len(weights) + half
            told = await eventually(progress, until=lambda p: p.get("bytes") == wanted)
            assert (told["message"], told["total"]) == ("fetching", total)
            assert told["percent"] == 100 * wanted // total
        bucket.slow.clear()
        bucket.asked.clear()
        environ = {"AWS_ENDPOINT_URL": bucket.url}
        pulled = pull("s3://bucket/tiny", tmp_path / "cache", environ=environ)
        asked = [(p, h.get("range")) for _, p, h in bucket.asked if "?" not in p]
    assert asked == [(path, f"bytes={half}-")]
    assert pulled.files["model.safetensors"] == weights


def test_only_what_lies_below_the_prefix_and_is_no_code_is_fetched(
    tmp_path: Path, secret: Path, tiny_model: Path
) -> None:
    pulled = pull(f"s3://{BUCKET}/team a/tiny/", tmp_path / "cache", credentials=secret)
    assert pulled.files == contents(tiny_model)
    assert pulled.transfer.bytes == pulled.transfer.total == sum(map(len, pulled.files.values()))


def test_a_listing_of_several_pages_is_read_to_its_end(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "_PAGE", 2)
    pulled = pull(f"s3://{BUCKET}/many", tmp_path / "cache", credentials=secret)
    assert len(pulled.files) == 7


@pytest.mark.parametrize(
    ("uri", "changed", "told"),
    [
        ("s3://models/nothing", {}, ("ModelSourceNotFound", "no weights")),
        ("s3://no-such-bucket/x", {}, ("ModelSourceNotFound", "NoSuchBucket")),
        ("s3://NOT/x", {}, ("ModelSourceNotFound", "bucket")),
        (
            "s3://models/many",
            {"AWS_SECRET_ACCESS_KEY": "wrong"},
            ("ModelSourceUnauthorized", "SignatureDoesNotMatch"),
        ),
        (
            "s3://models/many",
            {"AWS_ACCESS_KEY_ID": "AKIAWRONG"},
            ("ModelSourceUnauthorized", "InvalidAccessKeyId"),
        ),
        ("s3://models/many", {"AWS_ACCESS_KEY_ID": ""}, ("ModelSourceUnauthorized", "together")),
        ("s3://models/x", {"AWS_ENDPOINT_URL": "ftp://x"}, ("ModelSourceNotFound", "AWS_ENDPOINT")),
        (
            "s3://models/x",
            {"AWS_ENDPOINT_URL": "http://169.254.169.254"},
            ("ModelSourceUnreachable", "no public address"),
        ),
    ],
)
def test_what_will_not_do_is_told_apart(
    tmp_path: Path, store: S3, uri: str, changed: dict[str, str], told: tuple[str, str]
) -> None:
    reason, words = told
    secret = store.credentials(tmp_path / "secret", **changed)
    with pytest.raises(LoadFailed, match=words) as failure:
        pull(uri, tmp_path / "cache", credentials=secret)
    assert (failure.value.reason, failure.value.permanent) == (reason, True)
    assert store.secret not in failure.value.message


def test_the_environment_has_keys_too(tmp_path: Path, store: S3) -> None:
    environ = {
        "AWS_ENDPOINT_URL_S3": store.url,
        "AWS_ACCESS_KEY_ID": store.access,
        "AWS_SECRET_ACCESS_KEY": store.secret,
    }
    store.put("other", {"config.json": FILES["config.json"]})
    pulled = pull("s3://other", tmp_path / "cache", environ=environ)
    assert pulled.files == {"config.json": FILES["config.json"]}
