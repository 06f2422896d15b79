"""POST /v1/embeddings: what is asked, and its answer."""

from __future__ import annotations

from array import array
from base64 import b64encode
from dataclasses import dataclass
from sys import byteorder
from typing import Any, Literal

import orjson
from pydantic import Field

from pippin_edge.errors import BadRequest

from ..engines.base import Embedded, Input, Vector
from ..engines.batching import normal
from .common import Strict, validated

#: Texts of one request, as OpenAI bounds them.
MAX_INPUTS = 2048
Encoding = Literal["float", "base64"]


class EmbeddingRequest(Strict):
    """`input`: a text or its token ids, or a list of either."""

    model: str = Field(min_length=1, max_length=512)
    input: Any
    encoding_format: Encoding | None = None
    dimensions: int | None = Field(default=None, ge=1)
    user: str | None = None

    @property
    def single(self) -> bool:
        asked = self.input
        if isinstance(asked, list):
            return bool(asked) and _is_token(asked[0])
        return isinstance(asked, str)

    def inputs(self) -> list[Input]:
        """Raises BadRequest naming the one that is wrong."""
        asked = [self.input] if self.single else self.input
        if not isinstance(asked, list):
            raise _bad("input", "must be a text, a list of texts, token ids, or a list of those")
        if not asked:
            raise _bad("input", "is empty: send at least one text")
        if len(asked) > MAX_INPUTS:
            raise _bad("input", f"has {len(asked)} texts, and one request may have {MAX_INPUTS}")
        kind = type(asked[0])
        return [self._one(index, one, kind) for index, one in enumerate(asked)]

    def where(self, index: int) -> str:
        """The name of one of the inputs, as the caller sent it."""
        return "input" if self.single else f"input.{index}"

    def _one(self, index: int, one: object, kind: type) -> Input:
        if not isinstance(one, str | list) or type(one) is not kind:
            raise _bad(self.where(index), "must be a text or token ids, as the others are")
        if not one:
            raise _bad(self.where(index), "is empty: leave it out")
        if isinstance(one, str):
            return one
        if not all(_is_token(token) for token in one):
            raise _bad(self.where(index), "must hold token ids, which are whole numbers from 0 on")
        return tuple(one)


def read(body: dict[str, Any]) -> EmbeddingRequest:
    """Raises BadRequest naming the field."""
    return validated(EmbeddingRequest, body)


def _is_token(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _bad(param: str, words: str) -> BadRequest:
    return BadRequest(f"'{param}' {words}", param=param)


@dataclass(frozen=True, slots=True)
class Form:
    """How an answer is to look."""

    model: str
    request_id: str
    encoding: Encoding
    dimensions: int | None


def whole(form: Form, embedded: Embedded) -> bytes:
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(form, vector)}
        for index, vector in enumerate(embedded.vectors)
    ]
    usage = {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens}
    answer = {"object": "list", "data": data, "model": form.model, "usage": usage}
    return orjson.dumps({**answer, "request_id": form.request_id})


def _encoded(form: Form, vector: Vector) -> str | list[float]:
    if form.dimensions is not None and form.dimensions < len(vector):
        vector = normal(vector[: form.dimensions])
    if form.encoding == "float":
        return vector.tolist()
    if byteorder == "big":  # on the wire it is the other way round
        vector = array("f", vector)
        vector.byteswap()
    return b64encode(vector.tobytes()).decode()
