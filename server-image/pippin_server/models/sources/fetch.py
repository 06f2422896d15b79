"""One file, whole: resumed where it broke off, tried again when that may help, then checked."""

from __future__ import annotations

import threading
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

from ...engines.base import LoadFailed
from .base import Listing, RemoteFile, corrupted, not_found, unauthorized, unreachable
from .cache import Blob, Cache
from .guard import Refused
from .partial import Partial, Version
from .progress import Meter
from .web import Answer, Answered, Broken, Request, Web

T = TypeVar("T")

_CHUNK = 1024 * 1024
#: Further tries after one that failed, and seconds before the first of them; then twice that.
_RETRIES, _PAUSE = 3, 0.1
#: After so many new bytes a connection that breaks is a new misfortune, and not the same again.
_HEADWAY = 16 * 1024 * 1024


class Stopped(Exception):
    """Another file of the model failed, so this one is of no use."""


class Changed(Exception):
    """What there is of the file so far is of no use; from the start, then."""


@dataclass(frozen=True)
class Fetcher:
    """All that fetching one file takes."""

    web: Web
    cache: Cache
    meter: Meter
    stop: threading.Event
    sleep: Callable[[float], object]

    def patiently(self, where: str, attempt: Callable[[], T], headway: Callable[[], int]) -> T:
        """Its result, after further tries when it breaks. Raises LoadFailed, Stopped."""
        failures, before = 0, headway()
        while True:
            try:
                return attempt()
            except Refused as error:
                raise unreachable(f"{where}: {error}", permanent=True) from error
            except (Broken, Answered) as error:
                if isinstance(error, Answered) and not error.passing:
                    raise refusal(where, error) from error
                if headway() - before >= _HEADWAY:
                    failures, before = 0, headway()
                if failures == _RETRIES:
                    raise unreachable(f"{where}: {error}") from error
            self.sleep(_PAUSE * 2**failures)
            failures += 1

    def small(self, where: str, request: Request, most: int) -> tuple[Answer, bytes]:
        """An answer of a few bytes: a listing, a manifest. Raises LoadFailed."""

        def attempt() -> tuple[Answer, bytes]:
            with self.web.open(request) as answer:
                return answer, answer.all(most)

        return self.patiently(where, attempt, lambda: 0)

    def blob(self, file: RemoteFile, listing: Listing) -> Blob:
        """The file in the cache, by its content. Only for who holds its lock. Raises LoadFailed."""
        partial = self.cache.partial(file)
        self.meter.skip(partial.size)
        self._room(file, partial)
        self.patiently(file.name, lambda: self._once(file, listing, partial), lambda: partial.size)
        partial.settle()
        blob = Blob(partial.digest, partial.size)
        self.cache.adopt(partial.path, blob)
        partial.done()
        return blob

    def _room(self, file: RemoteFile, partial: Partial) -> None:
        missing = (file.size or 0) - partial.size
        if missing > self.cache.free():
            raise LoadFailed(
                "CacheFull", f"{file.name}: {missing} more bytes do not fit into the cache"
            )

    def _once(self, file: RemoteFile, listing: Listing, partial: Partial) -> None:
        if partial.size and (partial.size != file.size or not _same(file, partial)):
            self._continue(file, listing, partial)
        elif not partial.size:
            self._whole(file, listing, partial)
        try:
            _check(file, partial)
        except Changed:
            # An earlier process may have left other bytes; those of now are judged for themselves.
            self._forget(partial)
            self._whole(file, listing, partial)
            _check(file, partial)

    def _continue(self, file: RemoteFile, listing: Listing, partial: Partial) -> None:
        try:
            if not _same(file, partial):
                raise Changed
            headers = {"range": f"bytes={partial.size}-"}
            if partial.version.etag:
                headers["if-range"] = partial.version.etag
            with self._ask(file, listing, headers) as answer:
                _continues(answer, file, partial)
                self._take(answer, file, partial)
        except (Changed, Answered) as error:
            if isinstance(error, Answered) and error.status != 416:
                raise
            self._forget(partial)
            self._whole(file, listing, partial)

    def _whole(self, file: RemoteFile, listing: Listing, partial: Partial) -> None:
        with self._ask(file, listing, {}) as answer:
            etag = answer.headers.get("etag", "")
            if file.etag and etag and etag != file.etag:
                raise Broken("it is being changed")
            partial.begin(Version(etag, file.sha256 or _promised(answer.headers)))
            self._take(answer, file, partial)

    def _ask(
        self, file: RemoteFile, listing: Listing, headers: Mapping[str, str]
    ) -> AbstractContextManager[Answer]:
        return self.web.open(Request(file.url, headers, listing.sign, listing.private))

    def _forget(self, partial: Partial) -> None:
        self.meter.skip(-partial.size)
        partial.discard()

    def _take(self, answer: Answer, file: RemoteFile, partial: Partial) -> None:
        """All that the answer has. Raises Broken when that is less than it said."""
        length = answer.length
        whole = partial.size + length if length is not None else None
        if file.size is not None and whole is not None and whole != file.size:
            raise corrupted(f"{file.name}: {whole} bytes instead of {file.size}", permanent=False)
        while chunk := answer.read(_CHUNK):
            if self.stop.is_set():
                raise Stopped
            partial.append(chunk)
            self.meter.add(len(chunk))
            if file.size is not None and partial.size > file.size:
                partial.discard()
                raise corrupted(f"{file.name}: more than {file.size} bytes", permanent=False)
        expected = whole if whole is not None else file.size
        if expected is not None and partial.size < expected:
            raise Broken(f"cut off after {partial.size} of {expected} bytes")


def _same(file: RemoteFile, partial: Partial) -> bool:
    """Whether what there is can be recognised as a part of this very file."""
    if file.sha256:
        return partial.version.sha256 == file.sha256
    etag = partial.version.etag
    return bool(etag) and not etag.startswith("W/") and (not file.etag or etag == file.etag)


def _continues(answer: Answer, file: RemoteFile, partial: Partial) -> None:
    """Raises Changed unless the answer is what comes after what there is."""
    told = answer.headers.get("content-range", "")
    etag = answer.headers.get("etag", "")
    if answer.status != 206 or not told.startswith(f"bytes {partial.size}-"):
        raise Changed
    if not file.sha256 and etag != partial.version.etag:
        raise Changed
    total = told.rpartition("/")[2]
    if file.size is not None and total.isdecimal() and int(total) != file.size:
        raise Changed


def _check(file: RemoteFile, partial: Partial) -> None:
    """Raises LoadFailed when this is not the file; Changed when earlier bytes may be at fault."""
    wrong = ""
    if file.size is not None and partial.size != file.size:
        wrong = f"{partial.size} bytes instead of {file.size}"
    elif partial.version.sha256 and partial.digest != partial.version.sha256:
        wrong = "its content does not have the digest that it should have"
    if not wrong:
        return
    if partial.resumed:
        raise Changed
    partial.discard()
    raise corrupted(f"{file.name}: {wrong}", permanent=False)


def _promised(headers: Mapping[str, str]) -> str:
    """The digest that S3 says; one of several parts has a dash in it, and is of no use here."""
    told = headers.get("x-amz-checksum-sha256", "")
    try:
        raw = b64decode(told, validate=True)
    except NotBase64:
        return ""
    return raw.hex() if len(raw) == 32 else ""


def refusal(where: str, error: Answered) -> LoadFailed:
    """An answer that another try does not change."""
    if error.status in (401, 403):
        return unauthorized(f"{where}: the credentials are refused, or it needs some")
    if error.status in (404, 410):
        return not_found(f"{where}: not there")
    return unreachable(f"{where}: the server answers {error.status}", permanent=True)
