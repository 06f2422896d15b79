"""`s3://bucket/prefix`: Amazon's, or what speaks like it at an endpoint of yours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, urlencode, urlsplit
from xml.etree import ElementTree

from ...engines.base import LoadFailed
from . import archive
from .base import (
    Listing,
    RemoteFile,
    Surroundings,
    is_safe,
    not_found,
    unauthorized,
    unreachable,
    wanted,
)
from .fetch import Fetcher, refusal
from .sigv4 import Keys, signed
from .web import Answered, Request

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_REGION = re.compile(r"[a-z0-9-]{1,40}")
#: Bytes of a page of a listing, and pages; a model has a few dozen files.
_MOST, _PAGES = 8 * 1024 * 1024, 100
_PAGE = 1000
_EXAMPLE = "write s3://bucket/path"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the buckets are. `url` is empty for Amazon's own."""

    region: str
    url: str = ""

    def base(self, bucket: str) -> str:
        """The bucket's URL, which ends in no slash."""
        if self.url:
            return f"{self.url}/{bucket}"
        host = f"s3.{self.region}.amazonaws.com"
        # A dot in a name would need a certificate for one more level than Amazon's has.
        return f"https://{host}/{bucket}" if "." in bucket else f"https://{bucket}.{host}"


class Objects:
    """Everything below a prefix, or the one archive that is named."""

    def __init__(self, uri: str, around: Surroundings, tools: Fetcher) -> None:
        self.where = uri
        bucket, _, path = uri.removeprefix("s3://").partition("/")
        if not _BUCKET.fullmatch(bucket):
            raise not_found(f"{uri}: {bucket!r} is no name of a bucket: {_EXAMPLE}")
        self._bucket, self._path = bucket, path.strip("/")
        self._endpoint = _endpoint(around)
        self._keys = _keys(around)
        self._tools = tools

    def files(self) -> Listing:
        is_archive = self._path.endswith(archive.SUFFIXES)
        prefix = self._path if is_archive or not self._path else self._path + "/"
        found = [
            self._file(entry, prefix, is_archive)
            for entry in self._entries(prefix)
            if _is_taken(entry.key, prefix, is_archive)
        ]
        if not found:
            raise not_found(f"{self.where}: there are no weights")
        return Listing(found, self._sign, private=bool(self._endpoint.url))

    def _file(self, entry: _Entry, prefix: str, is_archive: bool) -> RemoteFile:
        url = f"{self._base}/{quote(entry.key, safe='/~')}"
        name = entry.key if is_archive else entry.key.removeprefix(prefix)
        identity = f"{url} {entry.etag} {entry.size}" if entry.etag else ""
        return RemoteFile(name, url, identity, entry.size, etag=entry.etag, archive=is_archive)

    @property
    def _base(self) -> str:
        return self._endpoint.base(self._bucket)

    def _sign(self, url: str, headers: Mapping[str, str]) -> Mapping[str, str]:
        asked = {"x-amz-checksum-mode": "ENABLED"}
        if self._keys is None:
            return asked
        headers = {**{n: v for n, v in headers.items() if n == "range"}, **asked}
        added = signed(url, headers, self._keys, self._endpoint.region, datetime.now(UTC))
        return {**asked, **added}

    def _entries(self, prefix: str) -> Iterator[_Entry]:
        token = ""
        for _ in range(_PAGES):
            page = self._page(prefix, token)
            yield from page.entries
            token = page.next
            if not token:
                return
        raise unreachable(f"{self.where}: far too many objects for a model", permanent=True)

    def _page(self, prefix: str, token: str) -> _Page:
        try:
            return self._ask(prefix, token)
        except LoadFailed as failure:
            answered = failure.__cause__
            if not isinstance(answered, Answered):
                raise
            region = answered.headers.get("x-amz-bucket-region", "")
            if self._endpoint.url or region == self._endpoint.region or not _is_region(region):
                raise self._explained(failure, answered) from answered
            self._endpoint = Endpoint(region)
            return self._ask(prefix, token)

    def _ask(self, prefix: str, token: str) -> _Page:
        query = {"list-type": "2", "max-keys": str(_PAGE), "prefix": prefix}
        if token:
            query["continuation-token"] = token
        url = f"{self._base}/?{urlencode(query, quote_via=quote, safe='~')}"
        request = Request(url, sign=self._sign, private=bool(self._endpoint.url))
        _, body = self._tools.small(self.where, request, _MOST)
        return _parse(self.where, body)

    def _explained(self, failure: LoadFailed, answered: Answered) -> LoadFailed:
        """With the word by which S3 names what is wrong."""
        code = re.search(rb"<Code>([A-Za-z]{1,64})</Code>", answered.body)
        if code is None:
            return failure
        advice = "" if self._keys else "; no credentials were given: credentialsSecretRef"
        told = refusal(f"{self.where}: {code[1].decode()}{advice}", answered)
        return told


@dataclass(frozen=True, slots=True)
class _Entry:
    key: str
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class _Page:
    entries: tuple[_Entry, ...]
    next: str


def _is_taken(key: str, prefix: str, is_archive: bool) -> bool:
    if is_archive:
        return key == prefix
    name = key.removeprefix(prefix)
    return wanted(name) and is_safe(name)


def _is_region(text: str) -> bool:
    return bool(_REGION.fullmatch(text))


def _parse(where: str, body: bytes) -> _Page:
    """Raises LoadFailed. No document type is let in: entities are what makes XML dangerous."""
    try:
        if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
            raise ValueError("a document type")
        root = ElementTree.fromstring(body)
        space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
        if root.tag != f"{space}ListBucketResult":
            raise ValueError(root.tag)
        text: Callable[[ElementTree.Element, str], str] = lambda e, n: e.findtext(space + n) or ""  # noqa: E731
        entries = tuple(
            _Entry(text(item, "Key"), int(text(item, "Size")), text(item, "ETag"))
            for item in root.iter(f"{space}Contents")
        )
    except (ElementTree.ParseError, ValueError) as error:
        raise unreachable(f"{where}: what answers does not speak S3", permanent=True) from error
    return _Page(entries, text(root, "NextContinuationToken"))


def _endpoint(around: Surroundings) -> Endpoint:
    region = around.secret("AWS_REGION", "AWS_DEFAULT_REGION") or "us-east-1"
    url = (around.secret("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") or "").rstrip("/")
    parts = urlsplit(url)
    if not _is_region(region):
        raise not_found("AWS_REGION is no name of a region")
    if url and (parts.scheme not in ("http", "https") or not parts.hostname or parts.query):
        raise not_found("AWS_ENDPOINT_URL is no http:// or https:// address")
    return Endpoint(region, url)


def _keys(around: Surroundings) -> Keys | None:
    access = around.secret("AWS_ACCESS_KEY_ID")
    secret = around.secret("AWS_SECRET_ACCESS_KEY")
    if bool(access) != bool(secret):
        raise unauthorized("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY belong together")
    if not access or not secret:
        return None
    return Keys(access, secret, around.secret("AWS_SESSION_TOKEN") or "")
