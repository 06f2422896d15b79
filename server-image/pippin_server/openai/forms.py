"""Forms as requests: their fields in words and numbers, their files by name."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

from pydantic import ConfigDict

from pippin_edge.errors import BadRequest
from pippin_edge.multipart import Form, Part

from .common import Strict, refuse_unsupported, validated

F = TypeVar("F", bound="FormBody")


class FormBody(Strict):
    """Everything in a form is text: numbers are read from it, and an unknown field is a mistake."""

    model_config = ConfigDict(strict=False, extra="forbid", frozen=True)

    #: Fields that are not honoured yet -> the values that ask for nothing.
    NEUTRAL: ClassVar[dict[str, tuple[Any, ...]]] = {}
    #: Fields that ask nothing of an answer.
    IGNORED: ClassVar[frozenset[str]] = frozenset({"user", "safety_identifier", "metadata"})
    #: Fields that may come several times.
    LISTS: ClassVar[frozenset[str]] = frozenset()
    #: Fields that are files.
    FILES: ClassVar[frozenset[str]] = frozenset()


def read(kind: type[F], form: Form) -> F:
    """Raises BadRequest naming the field."""
    found: dict[str, Any] = {}
    for part in form.parts:
        name = base(part)
        if name in kind.FILES or name in kind.IGNORED:
            continue
        text = form.text(part)
        if name in kind.LISTS:
            found.setdefault(name, []).append(text)
        elif name in found:
            raise BadRequest(f"'{name[:64]}' is there twice: send it once", param=name[:64])
        else:
            found[name] = text
    refuse_unsupported(found, kind.NEUTRAL)
    return validated(kind, found)


def files(form: Form, name: str) -> list[bytes]:
    """The contents of the files of that name. Raises BadRequest for one that is empty."""
    found = [part for part in form.parts if base(part) == name]
    for part in found:
        if part.filename is None:
            raise BadRequest(f"'{name}' must be a file, with its filename", param=name)
        if part.start == part.end:
            raise BadRequest(f"'{name}' is an empty file", param=name)
    return [form.content(part) for part in found]


def only_file(form: Form, name: str) -> bytes:
    """Raises BadRequest when it is missing or not alone."""
    found = files(form, name)
    if len(found) != 1:
        words = "must be given, as a file" if not found else "is there twice: send one file"
        raise BadRequest(f"'{name}' {words}", param=name)
    return found[0]


def base(part: Part) -> str:
    """`image` of `image[]`, as clients write lists."""
    return part.name.partition("[")[0]
