"""What POST /v1/embeddings takes, refuses by name, and how it answers."""

from __future__ import annotations

import math
from array import array
from base64 import b64decode
from typing import Any

import orjson
import pytest

from pippin_edge.errors import BadRequest
from pippin_server.engines.base import Embedded
from pippin_server.openai.embeddings import Form, read, whole

VECTORS = [array("f", [0.6, 0.0, 0.8]), array("f", [0.0, 1.0, 0.0])]


def asked(value: Any, **fields: Any) -> Any:
    return read({"model": "m", "input": value, **fields})


@pytest.mark.parametrize(
    ("value", "inputs"),
    [
        ("cat", ["cat"]),
        (" ", [" "]),
        (["cat", "dog"], ["cat", "dog"]),
        ([1, 2, 3], [(1, 2, 3)]),
        ([[1], [2, 3]], [(1,), (2, 3)]),
        (["x"] * 2048, ["x"] * 2048),
    ],
)
def test_a_text_or_tokens_or_a_list_of_either_is_taken(value: Any, inputs: list[Any]) -> None:
    assert asked(value).inputs() == inputs


@pytest.mark.parametrize(
    ("value", "param", "words"),
    [
        ("", "input", "is empty"),
        ([], "input", "is empty"),
        (["a", ""], "input.1", "is empty"),
        ([[1], []], "input.1", "is empty"),
        (None, "input", "must be"),
        (5, "input", "must be"),
        ({"a": 1}, "input", "must be"),
        ([None], "input.0", "must be"),
        (["a", 1], "input.1", "must be"),
        ([1, "a"], "input", "token ids"),
        ([1, True], "input", "token ids"),
        ([True], "input.0", "must be"),
        ([1, -1], "input", "token ids"),
        ([[1], "a"], "input.1", "as the others"),
        ([[1.5]], "input.0", "token ids"),
        ([[2**31]], "input.0", "token ids"),
        (["x"] * 2049, "input", "2049 texts.*2048"),
    ],
)
def test_a_wrong_input_is_named(value: Any, param: str, words: str) -> None:
    with pytest.raises(BadRequest, match=words) as refused:
        asked(value).inputs()
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": "3"}, "dimensions"),
        ({"user": 5}, "user"),
        ({"model": ""}, "model"),
        ({"truncate": True}, "truncate"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest, match=param) as refused:
        asked("cat", **fields)
    assert refused.value.param == param


def test_a_body_without_input_is_told_so() -> None:
    with pytest.raises(BadRequest, match="'input': must be given"):
        read({"model": "m"})


def answer(encoding: Any = "float", dimensions: int | None = None) -> dict[str, Any]:
    form = Form(model="m", request_id="id-1", encoding=encoding, dimensions=dimensions)
    found: dict[str, Any] = orjson.loads(whole(form, Embedded(VECTORS, 5)))
    return found


def test_the_answer_has_the_vectors_in_order_and_what_they_cost() -> None:
    found = answer()
    assert (found["object"], found["model"], found["request_id"]) == ("list", "m", "id-1")
    assert found["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    assert [(item["object"], item["index"]) for item in found["data"]] == [
        ("embedding", 0),
        ("embedding", 1),
    ]
    assert found["data"][0]["embedding"] == pytest.approx([0.6, 0, 0.8])


def test_base64_holds_little_endian_floats_of_32_bits() -> None:
    first = array("f", b64decode(answer("base64")["data"][0]["embedding"]))
    assert first == VECTORS[0]


def test_fewer_dimensions_are_the_first_ones_at_length_1() -> None:
    first, second = (item["embedding"] for item in answer(dimensions=2)["data"])
    assert first == pytest.approx([1, 0])
    assert second == pytest.approx([0, 1])
    assert math.hypot(*first) == pytest.approx(1)
    assert answer(dimensions=3) == answer()
