"""`https://host/path/model.tar.gz`: one archive; `#sha256=…` says what must be in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urldefrag, urlsplit

from ...engines.base import LoadFailed
from . import archive
from .base import Listing, RemoteFile, Surroundings, not_found
from .fetch import Fetcher
from .web import Answer, Answered, Request

_DIGEST = re.compile(r"sha256=([0-9a-fA-F]{64})")
#: What servers say of a method that they do not know.
_NO_HEAD = (400, 403, 405, 501)


class Archive:
    """One archive on a web server."""

    def __init__(self, uri: str, around: Surroundings, tools: Fetcher) -> None:
        self._url, fragment = urldefrag(uri)
        parts = urlsplit(self._url)
        # A query often holds a signature, which is a credential.
        self.where = f"https://{parts.hostname}{parts.path}"
        if not parts.hostname or not parts.path.endswith(archive.SUFFIXES):
            words = ", ".join(archive.SUFFIXES)
            raise not_found(f"{self.where}: it must name an archive ({words})")
        if parts.username or parts.password:
            raise not_found(f"{self.where}: credentials belong into credentialsSecretRef")
        digest = _DIGEST.fullmatch(fragment)
        if fragment and digest is None:
            raise not_found(f"{self.where}: after # only sha256= and 64 digits of it can stand")
        self._sha256 = digest[1].lower() if digest else None
        self._token = around.token
        self._tools = tools

    def files(self) -> Listing:
        name = urlsplit(self._url).path.rpartition("/")[2]
        if self._sha256:
            # Nothing to ask for, if it was here before.
            identity = f"archive sha256 {self._sha256}"
            file = RemoteFile(name, self._url, identity, sha256=self._sha256, archive=True)
        else:
            file = self._asked(name)
        return Listing([file], self._sign)

    def _asked(self, name: str) -> RemoteFile:
        answer = self._head()
        if answer is None:
            return RemoteFile(name, self._url, archive=True)
        etag = answer.headers.get("etag", "")
        version = etag or answer.headers.get("last-modified", "")
        identity = f"{self._url} {version} {answer.length}" if version else ""
        return RemoteFile(name, self._url, identity, answer.length, etag=etag, archive=True)

    def _head(self) -> Answer | None:
        request = Request(self._url, sign=self._sign, method="HEAD")
        try:
            return self._tools.small(self.where, request, 0)[0]
        except LoadFailed as failure:
            answered = failure.__cause__
            if isinstance(answered, Answered) and answered.status in _NO_HEAD:
                return None
            raise

    def _sign(self, url: str, headers: Mapping[str, str]) -> Mapping[str, str]:
        return {"authorization": f"Bearer {self._token}"} if self._token else {}
