"""What callers and status are told holds no paths, addresses' credentials or keys."""

from __future__ import annotations

import pytest

from pippin_server.resilience.redact import MAX_LENGTH, redact


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cannot open /models/team/x.safetensors", "cannot open x.safetensors"),
        ("at https://user:pw@hub.example/a", "at https://***@hub.example/a"),
        ("got https://hub.example/a?sig=abc&x=1 refused", "got https://hub.example/a?*** refused"),
        ("token hf_abcdefghijklmnop was refused", "token *** was refused"),
        ("key sk-abcdefghijklmnop", "key sk-***"),
        ("Bearer abc.def", "Bearer ***"),
        ("password=hunter2 here", "password=*** here"),
        ("two\nlines", "two lines"),
        ("POST /v1/models is fine", "POST models is fine"),
        ("tensor model.layers.0/x stays", "tensor model.layers.0/x stays"),
    ],
)
def test_private_parts_go_and_the_sense_stays(text: str, expected: str) -> None:
    assert redact(text) == expected


def test_a_key_of_ours_is_not_shown() -> None:
    key = "pp_abcdefghijkl_" + "A" * 43
    assert "A" * 8 not in redact(f"the key {key} is wrong")


def test_an_endless_text_ends() -> None:
    assert len(redact("word " * 1000)) == MAX_LENGTH
