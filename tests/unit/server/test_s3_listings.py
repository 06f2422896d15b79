"""What S3 says before a file is fetched: where a bucket is, and what is in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pippin_server.engines.base import LoadFailed
from pippin_server.models.sources.s3 import Endpoint
from support import webserver
from support.sources import FILES, listing, offer, pull
from support.webserver import Files


@pytest.fixture
def bucket() -> Iterator[Files]:
    with webserver.files() as running:
        offer(running, "tiny")
        yield running


@pytest.mark.parametrize(
    ("endpoint", "bucket", "url"),
    [
        (Endpoint("eu-west-1"), "models", "https://models.s3.eu-west-1.amazonaws.com"),
        (Endpoint("eu-west-1"), "a.b", "https://s3.eu-west-1.amazonaws.com/a.b"),
        (Endpoint("x", "http://minio:9000"), "models", "http://minio:9000/models"),
    ],
)
def test_a_bucket_has_its_address(endpoint: Endpoint, bucket: str, url: str):
    assert endpoint.base(bucket) == url


def test_a_bucket_of_another_region_is_asked_there(
    tmp_path: Path, bucket: Files, monkeypatch: pytest.MonkeyPatch
):
    def base(endpoint: Endpoint, name: str) -> str:
        regions.append(endpoint.region)
        return f"{bucket.url}/{name}"

    def elsewhere(handler: webserver.Handler) -> bool:
        handler.send(301, b"", {"x-amz-bucket-region": "eu-west-1"})
        return True

    regions: list[str] = []
    monkeypatch.setattr(Endpoint, "base", base)
    bucket.faults = [elsewhere]
    with pytest.raises(LoadFailed):  # Amazon's own are public: the file server here is not
        pull("s3://bucket/tiny", tmp_path, networks=())
    assert pull("s3://bucket/tiny", tmp_path).files == FILES
    assert regions[-1] == "eu-west-1"


@pytest.mark.parametrize(
    "page",
    [
        b"<!DOCTYPE x [<!ENTITY a 'b'>]><ListBucketResult/>",
        b"<html></html>",
        b"{}",
        b"",
        b"<ListBucketResult><Contents><Key>tiny/a.json</Key></Contents></ListBucketResult>",
    ],
)
def test_what_does_not_speak_s3_is_told_so(tmp_path: Path, bucket: Files, page: bytes):
    bucket.contents["/bucket/"] = page
    with pytest.raises(LoadFailed, match="does not speak S3") as failure:
        pull("s3://bucket/tiny", tmp_path, environ={"AWS_ENDPOINT_URL": bucket.url})
    assert failure.value.permanent


def test_keys_that_lead_elsewhere_are_not_taken(tmp_path: Path, bucket: Files):
    evil = {"tiny/../../evil.json": b"x", "tiny//evil.json": b"x", "tiny/a/./evil.json": b"x"}
    good = {f"tiny/{name}": content for name, content in FILES.items()}
    bucket.contents["/bucket/"] = listing({**good, **evil})
    pulled = pull("s3://bucket/tiny", tmp_path, environ={"AWS_ENDPOINT_URL": bucket.url})
    assert pulled.files == FILES


def test_who_gave_no_keys_is_told_where_they_go(tmp_path: Path, bucket: Files):
    def denied(handler: webserver.Handler) -> bool:
        handler.send(403, b"<Error><Code>AccessDenied</Code></Error>")
        return True

    bucket.faults = [denied]
    with pytest.raises(LoadFailed, match="AccessDenied.*credentialsSecretRef") as failure:
        pull("s3://bucket/tiny", tmp_path, environ={"AWS_ENDPOINT_URL": bucket.url})
    assert failure.value.reason == "ModelSourceUnauthorized"
