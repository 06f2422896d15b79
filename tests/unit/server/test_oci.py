"""Models in a registry: every layout, every way to be let in, and what is refused."""

from __future__ import annotations

import io
import json
import tarfile
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from pippin_server.engines.base import LoadFailed
from support import webserver
from support.registry import INDEX, PASSWORD, TITLE, USER, Registry, registry
from support.sources import FILES, pull
from support.webserver import cut_after, redirect, status

RAW = "application/vnd.oci.image.layer.v1.tar"  # what ORAS says of any file


@pytest.fixture
def hub() -> Iterator[Registry]:
    with registry() as running:
        yield running


def titled(hub: Registry) -> list[dict]:
    return [hub.layer(content, RAW, **{TITLE: name}) for name, content in FILES.items()]


def tarred(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def fetch(hub: Registry, cache: Path, reference: str = ":v1", **changed):
    uri = f"oci://{hub.host}/team/tiny{reference}"
    return pull(uri, cache, **{"plain_registries": (hub.host,), **changed})


def oras(hub: Registry) -> list[dict]:
    return [*titled(hub), hub.layer(b"import os", RAW, **{TITLE: "run.py"})]


def oras_directory(hub: Registry) -> list[dict]:
    content = tarred({f"tiny/{name}": content for name, content in FILES.items()})
    kind = "application/vnd.oci.image.layer.v1.tar+gzip"
    return [hub.layer(content, kind, **{TITLE: "tiny", "io.deis.oras.content.unpack": "true"})]


def model_pack(hub: Registry) -> list[dict]:
    kind = "application/vnd.cncf.model.weight.v1.raw"
    named = [
        hub.layer(content, kind, **{"org.cncf.model.filepath": name})
        for name, content in FILES.items()
        if name != "config.json"
    ]
    config = tarred({"config.json": FILES["config.json"]})
    kind = "application/vnd.cncf.model.weight.config.v1.tar"
    return [*named, hub.layer(config, kind, **{"org.cncf.model.filepath": "config.json"})]


def kit_ops(hub: Registry) -> list[dict]:
    content = tarred({f"./{name}": content for name, content in FILES.items()})
    return [hub.layer(content, "application/vnd.kitops.modelkit.model.v1.tar+gzip")]


def image(hub: Registry) -> list[dict]:
    kind = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    layers = [{f"models/{name}": content} for name, content in FILES.items()]
    system = {"etc/passwd": b"root", "bin/sh": b"sh"}
    return [hub.layer(tarred(files), kind) for files in (system, *layers)]


@pytest.mark.parametrize("layout", [oras, oras_directory, model_pack, kit_ops, image])
def test_the_layouts_of_several_tools_are_read(tmp_path: Path, hub: Registry, layout):
    hub.push(layout(hub))
    assert fetch(hub, tmp_path).files == FILES


def test_a_digest_names_a_model_too(tmp_path: Path, hub: Registry):
    digest = hub.push(titled(hub))
    assert fetch(hub, tmp_path, f"@{digest}").files == FILES
    hub.files.contents[f"/v2/team/tiny/manifests/{digest}"] += b" "
    with pytest.raises(LoadFailed, match="digest"):
        fetch(hub, tmp_path, f":v1@{digest}")


def test_of_an_index_one_manifest_is_taken(tmp_path: Path, hub: Registry):
    digest = hub.push(titled(hub), "inner")
    strange = {"digest": f"sha256:{'0' * 64}", "platform": {"os": "plan9", "architecture": "x"}}
    hub.publish({"mediaType": INDEX, "manifests": [strange, {"digest": digest}]}, "v1")
    assert fetch(hub, tmp_path).files == FILES


def test_layers_that_are_here_are_not_fetched_again(tmp_path: Path, hub: Registry):
    hub.push([*titled(hub), *kit_ops(hub)])
    fetch(hub, tmp_path)
    hub.files.asked.clear()
    fetch(hub, tmp_path)
    assert not [path for _, path, _ in hub.files.asked if "/blobs/" in path]


def test_a_blob_that_breaks_off_goes_on_where_it_did(tmp_path: Path, hub: Registry):
    hub.push(titled(hub))
    digest = next(path for path in hub.files.contents if "/blobs/" in path)
    hub.files.slow = {path: cut_after(1) for path in hub.files.contents if path == digest}
    with pytest.raises(LoadFailed):
        fetch(hub, tmp_path)
    hub.files.slow.clear()
    assert fetch(hub, tmp_path).files == FILES
    assert "bytes=1-" in hub.files.ranges


def docker_config(hub: Registry, **entry: str) -> str:
    return json.dumps({"auths": {f"https://{hub.host}/v1/": entry, "other": {"auth": "eA=="}}})


LOGINS = {
    "two keys": lambda hub: {"username": USER, "password": PASSWORD},
    "a pull Secret": lambda hub: {
        ".dockerconfigjson": docker_config(
            hub, auth=b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        )
    },
    "one without auth": lambda hub: {
        ".dockerconfigjson": docker_config(hub, username=USER, password=PASSWORD)
    },
}


def secret(directory: Path, keys: dict[str, str]) -> Path:
    directory.mkdir()
    for name, value in keys.items():
        (directory / name).write_text(value)
    return directory


@pytest.mark.parametrize("way", ["basic", "token"])
@pytest.mark.parametrize("login", LOGINS)
def test_who_has_credentials_is_let_in(tmp_path: Path, hub: Registry, way: str, login: str):
    hub.push(titled(hub))
    hub.login = way
    credentials = secret(tmp_path / "secret", LOGINS[login](hub))
    assert fetch(hub, tmp_path / "cache", credentials=credentials).files == FILES


def test_a_token_that_ran_out_is_replaced(tmp_path: Path, hub: Registry):
    hub.push(titled(hub))
    hub.login, hub.expires_in = "token", 1  # no later than a second after it was given
    credentials = secret(tmp_path / "secret", LOGINS["two keys"](hub))

    def slow(handler: webserver.Handler) -> bool:
        hub.files.slowly.wait(1.2)
        return False

    hub.files.slow = {path: slow for path in hub.files.contents if "/manifests/" in path}
    assert fetch(hub, tmp_path / "cache", credentials=credentials).files == FILES
    assert hub.tokens > 1


@pytest.mark.parametrize("way", ["basic", "token"])
@pytest.mark.parametrize("keys", [{}, {"username": USER, "password": "wrong"}])
def test_who_has_none_or_the_wrong_ones_is_not(tmp_path: Path, hub: Registry, way: str, keys):
    hub.push(titled(hub))
    hub.login = way
    with pytest.raises(LoadFailed) as failure:
        fetch(hub, tmp_path / "cache", credentials=secret(tmp_path / "secret", keys))
    assert failure.value.reason == "ModelSourceUnauthorized"


def test_credentials_stay_with_the_registry_when_it_redirects(tmp_path: Path, hub: Registry):
    hub.push(titled(hub))
    hub.login = "token"
    with webserver.files() as store:
        blobs = {path: c for path, c in hub.files.contents.items() if "/blobs/" in path}
        store.contents = dict(blobs)
        hub.files.slow = {path: redirect(store.url + path) for path in blobs}
        credentials = secret(tmp_path / "secret", LOGINS["two keys"](hub))
        assert fetch(hub, tmp_path / "cache", credentials=credentials).files == FILES
        assert store.asked
        assert not [headers for *_, headers in store.asked if "authorization" in headers]


@pytest.mark.parametrize(
    "realm", ["http://169.254.169.254/token", "ftp://x/token", "https://169.254.169.254/token"]
)
def test_a_realm_that_is_no_place_for_passwords_gets_none(
    tmp_path: Path, hub: Registry, realm: str
):
    hub.login, hub.realm = "token", realm
    with pytest.raises(LoadFailed) as failure:
        fetch(hub, tmp_path)
    assert failure.value.reason == "ModelSourceUnreachable"


def test_a_missing_tag_is_not_there(tmp_path: Path, hub: Registry):
    with pytest.raises(LoadFailed) as failure:
        fetch(hub, tmp_path, ":v9")
    assert (failure.value.reason, failure.value.permanent) == ("ModelSourceNotFound", True)


def test_a_registry_that_is_down_may_be_up_again(tmp_path: Path, hub: Registry):
    hub.files.faults = [status(503)] * 4
    with pytest.raises(LoadFailed) as failure:
        fetch(hub, tmp_path)
    assert (failure.value.reason, failure.value.permanent) == ("ModelSourceUnreachable", False)


@pytest.mark.parametrize(
    "manifest",
    [
        [],
        {"layers": 5},
        {"layers": ["x"]},
        {"layers": [{"digest": "md5:x", "size": 1}]},
        {"layers": [{"digest": "sha256:../../x", "size": 1}]},
        {"manifests": []},
        {"manifests": [{"digest": "x"}]},
        {},
    ],
)
def test_nonsense_is_refused(tmp_path: Path, hub: Registry, manifest):
    hub.publish(manifest, "v1")
    with pytest.raises(LoadFailed, match="understood"):
        fetch(hub, tmp_path)


def test_titles_that_lead_elsewhere_are_not_taken(tmp_path: Path, hub: Registry):
    evil = ["../../evil.json", "/etc/evil.json", "a//evil.json"]
    hub.push([*titled(hub), *(hub.layer(b"x", RAW, **{TITLE: name}) for name in evil)])
    assert fetch(hub, tmp_path).files == FILES


@pytest.mark.parametrize(
    "uri", ["oci://x", "oci://x/UPPER", "oci://x/y:", "oci://x/y@sha256:1", "oci://a b/c"]
)
def test_what_is_no_reference_is_refused(tmp_path: Path, uri: str):
    with pytest.raises(LoadFailed) as failure:
        pull(uri, tmp_path)
    assert failure.value.reason == "ModelSourceNotFound"
