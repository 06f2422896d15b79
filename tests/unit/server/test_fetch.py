"""One file over HTTP: whole or not at all, resumed, tried again, and never from the wrong place."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from pippin_server.engines.base import LoadFailed
from pippin_server.models.sources.base import Listing, RemoteFile, unsigned
from pippin_server.models.sources.cache import Blob, Cache
from pippin_server.models.sources.fetch import Fetcher
from pippin_server.models.sources.guard import Guard
from pippin_server.models.sources.progress import Meter
from pippin_server.models.sources.web import Web
from support import webserver
from support.webserver import Files, cut_after, redirect, stall_after, status

CONTENT = bytes(range(256)) * 4096
DIGEST = hashlib.sha256(CONTENT).hexdigest()
PATH = "/weights"


@pytest.fixture
def server() -> Iterator[Files]:
    with webserver.files() as running:
        running.contents[PATH] = CONTENT
        yield running


class Puller:
    """A fetcher with a cache of its own, and what it was seen to do."""

    def __init__(self, cache: Path, stall: float = 5.0, loopback: bool = True) -> None:
        self.pauses: list[float] = []
        self.cache = Cache(cache)
        networks = (ip_network("127.0.0.0/8"),) if loopback else ()
        self.tools = Fetcher(
            Web(Guard(networks), stall),
            self.cache,
            Meter(lambda *_: None, lambda: 0.0),
            threading.Event(),
            self.pauses.append,
        )

    def pull(self, file: RemoteFile, sign=unsigned) -> Blob:
        return self.tools.blob(file, Listing([file], sign))

    def left_over(self, file: RemoteFile) -> int:
        return self.cache.partial(file).size


@pytest.fixture
def puller(tmp_path: Path) -> Puller:
    return Puller(tmp_path)


def a_file(server: Files, **fields) -> RemoteFile:
    return RemoteFile("w", server.url + PATH, **{"size": len(CONTENT), **fields})


def test_a_file_is_kept_by_its_content(server: Files, puller: Puller):
    blob = puller.pull(a_file(server))
    assert blob == Blob(DIGEST, len(CONTENT))
    assert puller.cache.path(blob).read_bytes() == CONTENT


def test_an_answer_that_breaks_off_goes_on_where_it_did(server: Files, puller: Puller):
    server.faults = [cut_after(1000)]
    assert puller.pull(a_file(server)).sha256 == DIGEST
    assert server.ranges == [None, "bytes=1000-"]
    assert server.asked[1][2]["if-range"]


def test_a_later_process_asks_only_for_the_rest(server: Files, puller: Puller, tmp_path: Path):
    server.faults = [cut_after(5000), *[status(503)] * 3]
    with pytest.raises(LoadFailed):
        puller.pull(a_file(server))
    server.asked.clear()
    assert Puller(tmp_path).pull(a_file(server)).sha256 == DIGEST
    assert server.ranges == ["bytes=5000-"]


def test_what_changed_in_between_is_fetched_from_the_start(server: Files, puller: Puller):
    server.faults = [cut_after(5000), *[status(503)] * 3]
    with pytest.raises(LoadFailed):
        puller.pull(a_file(server, size=None))
    server.contents[PATH] = other = b"other" * 9999
    blob = puller.pull(a_file(server, size=None))
    assert puller.cache.path(blob).read_bytes() == other


def test_without_a_version_nothing_is_resumed(server: Files, puller: Puller):
    server.faults = [cut_after(5000, etag=False)]
    assert puller.pull(a_file(server)).sha256 == DIGEST
    assert server.ranges == [None, None]


def test_a_server_without_ranges_sends_it_all_again(server: Files, puller: Puller):
    def whole(handler: webserver.Handler) -> bool:
        handler.send(200, CONTENT)
        return True

    server.faults = [cut_after(1000), whole]
    assert puller.pull(a_file(server)).sha256 == DIGEST


def test_bytes_that_were_spoiled_before_are_fetched_again(
    server: Files, puller: Puller, tmp_path: Path
):
    server.faults = [cut_after(5000), *[status(503)] * 3]
    file = a_file(server, sha256=DIGEST)
    with pytest.raises(LoadFailed):
        puller.pull(file)
    (partial,) = (tmp_path / "partial").glob("*.partial")
    partial.write_bytes(b"x" * 5000)
    assert Puller(tmp_path).pull(file).sha256 == DIGEST


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_a_passing_failure_is_tried_again_three_times_later_each_time(
    server: Files, puller: Puller, code: int
):
    server.faults = [status(code)] * 3
    assert puller.pull(a_file(server)).sha256 == DIGEST
    assert puller.pauses == [0.1, 0.2, 0.4]
    server.faults = [status(code)] * 4
    with pytest.raises(LoadFailed) as failure:
        puller.pull(a_file(server, identity="again"))
    assert (failure.value.reason, failure.value.permanent) == ("ModelSourceUnreachable", False)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (401, "ModelSourceUnauthorized"),
        (403, "ModelSourceUnauthorized"),
        (404, "ModelSourceNotFound"),
        (410, "ModelSourceNotFound"),
        (400, "ModelSourceUnreachable"),
    ],
)
def test_a_refusal_is_not_tried_again(server: Files, puller: Puller, code: int, reason: str):
    server.faults = [status(code)]
    with pytest.raises(LoadFailed) as failure:
        puller.pull(a_file(server))
    assert (failure.value.reason, failure.value.permanent) == (reason, True)
    assert len(server.asked) == 1


def test_a_connection_on_which_nothing_comes_is_given_up(server: Files, tmp_path: Path):
    server.faults = [stall_after(3000)]
    assert Puller(tmp_path, stall=0.2).pull(a_file(server)).sha256 == DIGEST
    assert server.ranges == [None, "bytes=3000-"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"size": 17}, "instead of 17"),
        ({"size": len(CONTENT) + 1}, "instead of"),
        ({"sha256": "0" * 64}, "digest"),
    ],
)
def test_the_wrong_bytes_are_never_kept(server: Files, puller: Puller, fields, words):
    file = a_file(server, **fields)
    with pytest.raises(LoadFailed, match=words) as failure:
        puller.pull(file)
    assert failure.value.reason == "ModelCorrupted"
    assert puller.cache.known(file) is None
    assert puller.left_over(file) == 0


def test_the_digest_that_the_server_promises_is_checked(server: Files, puller: Puller):
    server.headers = {"x-amz-checksum-sha256": "A" * 43 + "="}
    with pytest.raises(LoadFailed, match="digest"):
        puller.pull(a_file(server))


def test_a_truncated_download_is_never_used(server: Files, puller: Puller):
    server.faults = [cut_after(1000), *[status(500)] * 3]
    file = a_file(server, identity="it", sha256=DIGEST)
    with pytest.raises(LoadFailed):
        puller.pull(file)
    assert puller.cache.known(file) is None
    assert puller.left_over(file) == 1000


def test_nothing_is_fetched_that_does_not_fit_on_the_disk(server: Files, puller: Puller):
    with pytest.raises(LoadFailed, match="do not fit") as failure:
        puller.pull(a_file(server, size=2**62))
    assert failure.value.reason == "CacheFull"
    assert server.asked == []


def bearer(url: str, headers) -> dict[str, str]:
    return {"authorization": "Bearer secret"}


def test_credentials_go_to_their_host_and_to_no_other(server: Files, puller: Puller):
    with webserver.files() as other:
        other.contents[PATH] = CONTENT
        server.faults = [redirect("/moved"), redirect(other.url + PATH)]
        puller.pull(a_file(server), bearer)
        assert [headers.get("authorization") for _, _, headers in server.asked] == [
            "Bearer secret"
        ] * 2
        assert "authorization" not in other.asked[0][2]


def test_a_credential_that_cannot_be_sent_is_not_quoted(server: Files, puller: Puller):
    with pytest.raises(LoadFailed) as failure:
        puller.pull(a_file(server), lambda *_: {"authorization": "Bearer sec\nret"})
    assert (failure.value.permanent, "ret" in failure.value.message) == (True, False)


def test_redirects_end(server: Files, puller: Puller):
    server.faults = [redirect(PATH)] * 9
    with pytest.raises(LoadFailed, match="redirects"):
        puller.pull(a_file(server))
    assert len(server.asked) == 6


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:169.254.169.254]/",
        "http://[fd00:ec2::254]/",
        "http://10.0.0.1/",
        "file:///etc/passwd",
        "http://127.0.0.1:99999/",
    ],
)
def test_a_redirect_to_a_private_place_is_refused(server: Files, puller: Puller, url: str):
    server.faults = [redirect(url)]
    with pytest.raises(LoadFailed) as failure:
        puller.pull(a_file(server))
    assert (failure.value.reason, failure.value.permanent) == ("ModelSourceUnreachable", True)
    assert puller.pauses == []


def test_a_name_that_resolves_to_this_machine_is_refused(server: Files, tmp_path: Path):
    file = RemoteFile("w", server.url.replace("127.0.0.1", "localhost") + PATH)
    with pytest.raises(LoadFailed, match="no public address"):
        Puller(tmp_path, loopback=False).pull(file)
    assert server.asked == []
