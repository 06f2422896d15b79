"""multipart/form-data, read while it comes: strictly, with bounds, and by where each part lies.

The gateway finds the model's name with it and the server everything else, so that nobody can tell
the one something else than the other. A file is not copied out of the body.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from .asgi import Receive, Scope, header
from .errors import BadRequest, ClientGone, UnsupportedMedia

#: Parts of one body, bytes of a part's headers, and of a field that is no file.
MAX_PARTS, MAX_HEAD_BYTES, MAX_FIELD_BYTES = 64, 4096, 256 * 1024

_BOUNDARY = re.compile(rb"""boundary=(?:"([\w'()+,./:=? -]{1,70})"|([\w'()+,./:=?-]{1,70}))""")
_PARAMETER = re.compile(r';\s*([\w-]+\*?)\s*=\s*("(?:[^"\\]|\\.)*"|[^;\s"]*)')
_ESCAPED = re.compile(r'\\(["\\])')


@dataclass(frozen=True, slots=True)
class Part:
    """A field, or a file (`filename` is not None), and where its content lies in the body."""

    name: str
    filename: str | None
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Form:
    """A whole body; `content_type` is the request's header."""

    content_type: bytes
    body: bytes
    parts: tuple[Part, ...]

    def content(self, part: Part) -> bytes:
        return self.body[part.start : part.end]

    def text(self, part: Part) -> str:
        """Raises BadRequest for a file, and for bytes that are no UTF-8."""
        if part.filename is not None:
            raise BadRequest(f"'{part.name}' must be a field, not a file", param=part.name)
        try:
            return self.content(part).decode()
        except UnicodeDecodeError as error:
            raise BadRequest(f"'{part.name}' is not UTF-8", param=part.name) from error

    def only(self, name: str) -> Part:
        """The field of that name. Raises BadRequest when there is none, or more than one."""
        found = [part for part in self.parts if part.name == name]
        if len(found) > 1:
            raise BadRequest(f"'{name}' is there {len(found)} times: send it once", param=name)
        if not found or found[0].start == found[0].end:
            raise BadRequest(f"'{name}' must be given, as a field of the form", param=name)
        return found[0]

    def fields(self) -> Iterator[Part]:
        """Those that are no files."""
        return (part for part in self.parts if part.filename is None)


async def read(scope: Scope, receive: Receive) -> Form:
    """All of the body. Put a BodyLimit around: nothing here caps it.

    Raises UnsupportedMedia, BadRequest (as soon as a part is wrong), ClientGone.
    """
    kind = header(scope["headers"], b"content-type") or b""
    found = _BOUNDARY.search(kind)
    if kind.partition(b";")[0].strip().lower() != b"multipart/form-data" or found is None:
        raise UnsupportedMedia(
            "send the body as a form: Content-Type: multipart/form-data, with its boundary"
        )
    reader = Reader(found[1] or found[2])
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        reader.feed(message.get("body", b""))
        if not message.get("more_body"):
            return Form(kind, *reader.end())


class Reader:
    """Takes a body piece by piece. Nothing may stand before the first part or after the last."""

    def __init__(self, boundary: bytes) -> None:
        self._body = bytearray()
        self._delimiter = b"\r\n--" + boundary
        self._parts: list[Part] = []
        #: What has been understood, and, in a part's content, searched.
        self._at = 0
        self._name, self._start = "", 0
        self._filename: str | None = None
        # Not bound to this reader: that would keep the body until garbage is collected.
        self._step: Callable[[Reader], bool] = Reader._opening

    def feed(self, data: bytes) -> None:
        """Raises BadRequest."""
        self._body += data
        while self._step(self):
            pass

    def end(self) -> tuple[bytes, tuple[Part, ...]]:
        """The body and its parts. Raises BadRequest when it is not whole."""
        if self._step is not Reader._over:
            raise _bad("ends before its last boundary: send all of it")
        return bytes(self._body), tuple(self._parts)

    def _opening(self) -> bool:
        first = self._delimiter[2:]
        if not first.startswith(self._body[: len(first)]):
            raise _bad("does not begin with its boundary")
        self._at = len(first)
        return self._turn(Reader._after, len(self._body) >= len(first))

    def _after(self) -> bool:
        """What follows a boundary: the next part, or the end."""
        two = bytes(self._body[self._at : self._at + 2])
        if len(two) < 2:
            return False
        if two not in (b"\r\n", b"--"):
            raise _bad("has a boundary that is followed by something else")
        self._at += 2
        return self._turn(Reader._head if two == b"\r\n" else Reader._over)

    def _head(self) -> bool:
        end = self._body.find(b"\r\n\r\n", self._at, self._at + MAX_HEAD_BYTES)
        if end < 0:
            if len(self._body) - self._at > MAX_HEAD_BYTES:
                raise _bad(f"has a part with more than {MAX_HEAD_BYTES} bytes of headers")
            return False
        if len(self._parts) == MAX_PARTS:
            raise _bad(f"has more than {MAX_PARTS} parts")
        self._name, self._filename = _named(bytes(self._body[self._at : end]))
        self._at = self._start = end + 4
        return self._turn(Reader._content)

    def _content(self) -> bool:
        end = self._body.find(self._delimiter, self._at)
        size = (end if end >= 0 else len(self._body)) - self._start
        if self._filename is None and size > MAX_FIELD_BYTES + len(self._delimiter):
            words = f"'{self._name[:64]}' is longer than {MAX_FIELD_BYTES} bytes: send less"
            raise BadRequest(words, param=self._name[:64])
        if end < 0:
            # The boundary may have come in part.
            self._at = max(self._start, len(self._body) - len(self._delimiter) + 1)
            return False
        self._parts.append(Part(self._name, self._filename, self._start, end))
        self._at = end + len(self._delimiter)
        return self._turn(Reader._after)

    def _over(self) -> bool:
        if not b"\r\n".startswith(self._body[self._at : self._at + 3]):
            raise _bad("goes on after its last boundary")
        return False

    def _turn(self, step: Callable[[Reader], bool], when: bool = True) -> bool:
        if when:
            self._step = step
        return when


def _named(head: bytes) -> tuple[str, str | None]:
    """A part's name and its file's, from its headers."""
    try:
        lines = head.decode().split("\r\n")
    except UnicodeDecodeError as error:
        raise _bad("has a part whose headers are not UTF-8") from error
    headers = {name.strip().lower(): value for name, _, value in (s.partition(":") for s in lines)}
    if headers.get("content-transfer-encoding", "binary").strip().lower() not in _PLAIN:
        raise _bad("has an encoded part: send its bytes as they are")
    kind, _, _ = (said := headers.get("content-disposition", "").strip()).partition(";")
    parameters = {name.lower(): _unquoted(value) for name, value in _PARAMETER.findall(said)}
    if kind.strip().lower() != "form-data" or not parameters.get("name"):
        raise _bad("has a part without 'Content-Disposition: form-data; name=…'")
    return parameters["name"], _filename(parameters)


_PLAIN = frozenset({"binary", "8bit", "7bit"})


def _filename(parameters: dict[str, str]) -> str | None:
    """As RFC 5987 writes it, else as browsers and clients do."""
    extended = parameters.get("filename*")
    if extended is None:
        return parameters.get("filename")
    return unquote_to_bytes(extended.rpartition("'")[2]).decode(errors="replace")


def _unquoted(value: str) -> str:
    return _ESCAPED.sub(r"\1", value[1:-1]) if value.startswith('"') else value


def _bad(words: str) -> BadRequest:
    return BadRequest(f"the form in the request's body {words}", code="invalid_multipart")
