"""Requests that are forms with files: the few fields that the gateway must know of them.

Their tokens do not go by their bytes: what they may take is learned from answers alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pippin_edge import multipart
from pippin_edge.asgi import Receive, Scope
from pippin_edge.errors import BadRequest
from pippin_edge.multipart import Form, Part

from .catalog.model import Model

PATHS = frozenset({"/v1/images/edits", "/v1/audio/transcriptions"})
#: A model's name and its namespace's are no longer.
_MAX_NAME = 1024
_TRUE = frozenset({"true", "1"})


@dataclass(frozen=True, slots=True)
class AskedByForm:
    """A form as it came, and where it names its model."""

    form: Form
    name: Part

    @property
    def content_type(self) -> bytes:
        return self.form.content_type

    def sent(self, asked: dict[str, Any], model: Model) -> bytes:
        """What that model gets: the same, but for the name where it is another."""
        served = model.spec.served_name
        if "/" not in asked["model"] and asked["model"] in model.spec.names:
            return self.form.body
        body = self.form.body
        return body[: self.name.start] + served.encode() + body[self.name.end :]


async def read(scope: Scope, receive: Receive) -> tuple[bytes, dict[str, Any], AskedByForm]:
    """No text, the fields in JSON's words, and the form. Raises what `multipart.read` does."""
    form = await multipart.read(scope, receive)
    name = form.only("model")
    if name.end - name.start > _MAX_NAME:
        raise BadRequest("'model' is too long for a name", param="model")
    said = {part.name: form.text(part) for part in form.fields() if part.name in ("stream", "n")}
    asked: dict[str, Any] = {"model": form.text(name)}
    if said.get("stream", "").lower() in _TRUE:
        asked["stream"] = True
    if (count := said.get("n", "")).isdecimal() and len(count) < 4:
        asked["n"] = int(count)
    return b"", asked, AskedByForm(form, name)
