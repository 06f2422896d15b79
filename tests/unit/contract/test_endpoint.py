"""The URL by which the gateway reaches a native Pod."""

from __future__ import annotations

import pytest

from pippin_contract.endpoint import Endpoint, parse, through_node

PIN = "a1" * 32


@pytest.mark.parametrize(
    "endpoint",
    [
        Endpoint("127.0.0.1", 20001),
        Endpoint("::1", 20001),
        through_node("mac.example", 10260, "0d-1", PIN),
        through_node("fd00::1", 10260, "0d-1", PIN),
    ],
)
def test_what_is_written_is_read_again(endpoint: Endpoint) -> None:
    assert parse(endpoint.url) == endpoint


@pytest.mark.parametrize(
    "url",
    [
        "http://host",
        "http://host:1/path",
        "http://user@host:1",
        "https://host:1",
        "https://host:1/pods/u",
        f"https://host:1/pods/u/x#{PIN}",
        f"https://host:1/pods/u%0d#{PIN}",
        f"https://host:1/pods/u?q#{PIN}",
        f"https://host:1/pods/u#{PIN[1:]}",
        f"tunnel://host:1/pods/u#{PIN}",
        "http://host:port",
        "",
    ],
)
def test_what_is_neither_of_the_two_forms_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        parse(url)
