"""Models in archives, from a web server: unpacked without trusting anything that is in them."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pippin_server.engines.base import LoadFailed
from pippin_server.models.sources import archive as unpacking
from pippin_server.models.sources import web
from support import certificates, webserver
from support.sources import FILES, pull
from support.webserver import Files, redirect, status

PATH = "/models/tiny.tar.gz"


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    context, trusted = certificates.loopback(tmp_path_factory.mktemp("tls"))
    with pytest.MonkeyPatch.context() as patch, webserver.files(tls=context) as running:
        patch.setenv("SSL_CERT_FILE", str(trusted))
        web._trusted.cache_clear()
        yield running
    web._trusted.cache_clear()


@pytest.fixture
def server(secure: Files) -> Files:
    secure.contents, secure.faults, secure.asked = {}, [], []
    return secure


def tarred(files: dict[str, bytes], mode: str = "w:gz", *, links: dict[str, str] | None = None):
    """`links`: name and target of symbolic links."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return out.getvalue()


def zipped(files: dict[str, bytes], *, links: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        for name, target in (links or {}).items():
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o120777 << 16
            archive.writestr(info, target)
    return out.getvalue()


def below(top: str) -> dict[str, bytes]:
    return {f"{top}{name}": content for name, content in FILES.items()}


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/m.tar.gz", tarred(FILES)),
        ("/m.tgz", tarred(below("./"))),
        ("/m.tar", tarred(below("tiny-model/"), "w")),
        ("/m.zip", zipped(below("a/b/"))),
        ("/m.tar", tarred({**FILES, "run.py": b"import os", "../x".removeprefix("../"): b""})),
    ],
)
def test_the_model_in_an_archive_is_found_wherever_it_lies(
    tmp_path: Path, server: Files, path: str, content: bytes
):
    server.contents[path] = content
    assert pull(server.url + path, tmp_path).files == FILES


def test_the_archive_itself_is_not_kept_and_not_fetched_again(tmp_path: Path, server: Files):
    server.contents[PATH] = tarred(FILES)
    pull(server.url + PATH, tmp_path)
    assert {p.name for p in (tmp_path / "blobs").iterdir()} == {
        hashlib.sha256(content).hexdigest() for content in FILES.values()
    }
    server.asked.clear()
    assert pull(server.url + PATH, tmp_path).files == FILES
    assert [method for method, *_ in server.asked] == ["HEAD"]


def test_with_a_digest_nothing_is_asked_once_it_is_here(tmp_path: Path, server: Files):
    server.contents[PATH] = content = tarred(FILES)
    uri = f"{server.url}{PATH}#sha256={hashlib.sha256(content).hexdigest()}"
    pull(uri, tmp_path)
    server.asked.clear()
    assert pull(uri, tmp_path).files == FILES
    assert server.asked == []


def test_a_wrong_digest_is_refused(tmp_path: Path, server: Files):
    server.contents[PATH] = tarred(FILES)
    with pytest.raises(LoadFailed, match="digest") as failure:
        pull(f"{server.url}{PATH}#sha256={'0' * 64}", tmp_path)
    assert failure.value.reason == "ModelCorrupted"


def test_the_token_is_shown_to_the_server(tmp_path: Path, server: Files):
    server.contents[PATH] = tarred(FILES)
    pull(server.url + PATH, tmp_path, token="secret")
    assert {headers["authorization"] for *_, headers in server.asked} == {"Bearer secret"}


def test_a_server_that_knows_no_head_is_asked_all_the_same(tmp_path: Path, server: Files):
    server.contents[PATH] = tarred(FILES)
    server.faults = [status(405)]
    assert pull(server.url + PATH, tmp_path).files == FILES


@pytest.mark.parametrize(
    "content",
    [
        tarred({**FILES, "../../evil.json": b"x"}),
        tarred({**FILES, "/etc/evil.json": b"x"}),
        tarred({**FILES, "a/../../evil.py": b"x"}),
        zipped({**FILES, "../../evil.json": b"x"}),
        zipped({**FILES, "..\\evil.json": b"x"}),
        tarred(FILES, links={"evil.json": "/etc/passwd"}),
        zipped(FILES, links={"evil.json": "/etc/passwd"}),
        tarred(FILES)[:-200],
        tarred(FILES)[:-8] + bytes(8),
        tarred(FILES, "w:xz"),
        tarred({"config.json": b"{}", **FILES}, "w:")[: 2 * 512],
        zipped(FILES)[:-30],
        b"no archive at all",
        b"",
    ],
)
def test_an_archive_that_is_not_right_is_refused_whole(
    tmp_path: Path, server: Files, content: bytes
):
    server.contents[PATH] = content
    with pytest.raises(LoadFailed) as failure:
        pull(server.url + PATH, tmp_path / "cache")
    assert failure.value.reason == "ModelCorrupted"
    assert not list((tmp_path / "cache/models").iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_links_that_nobody_reads_do_no_harm(tmp_path: Path, server: Files):
    server.contents[PATH] = tarred(FILES, links={"bin/sh": "/bin/busybox"})
    assert pull(server.url + PATH, tmp_path).files == FILES


def test_an_archive_that_grows_without_end_is_refused(
    tmp_path: Path, server: Files, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(unpacking, "_ROOM", 1000)
    monkeypatch.setattr(unpacking, "_GROWTH", 3)
    for name in ("zeros.json", "zeros.bin"):
        server.contents[PATH] = tarred({**FILES, name: bytes(10_000_000)})
        with pytest.raises(LoadFailed, match="larger"):
            pull(server.url + PATH, tmp_path)


@pytest.mark.parametrize(
    "uri",
    [
        "https://example.com/model.safetensors",
        "https:///model.tar",
        "https://user:password@example.com/model.tar",
        "https://example.com/model.tar#md5=1",
    ],
)
def test_an_address_that_says_too_little_or_too_much_is_refused(tmp_path: Path, uri: str):
    with pytest.raises(LoadFailed) as failure:
        pull(uri, tmp_path)
    assert failure.value.reason == "ModelSourceNotFound"
    assert "password" not in failure.value.message


@pytest.mark.parametrize("url", ["https://127.0.0.1/x.tar", "https://10.0.0.1/x.tar"])
def test_a_private_address_is_refused(tmp_path: Path, url: str):
    with pytest.raises(LoadFailed, match="no public address") as failure:
        pull(url, tmp_path, networks=())
    assert (failure.value.reason, failure.value.permanent) == ("ModelSourceUnreachable", True)


def test_nobody_is_led_from_tls_to_plain_http(tmp_path: Path, server: Files):
    server.faults = [redirect(server.url.replace("https", "http") + PATH)]
    with pytest.raises(LoadFailed, match="plain http"):
        pull(server.url + PATH, tmp_path)


def test_a_certificate_that_nobody_trusts_ends_it(
    tmp_path: Path, server: Files, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("SSL_CERT_FILE")
    web._trusted.cache_clear()
    try:
        with pytest.raises(LoadFailed, match="certificate"):
            pull(server.url + PATH, tmp_path)
    finally:
        web._trusted.cache_clear()
