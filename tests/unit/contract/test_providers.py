"""How the URL of a provider is read, and what is usual at one."""

from __future__ import annotations

import pytest

from pippin_contract import providers
from pippin_contract.providers import Handed, Place, parse


@pytest.mark.parametrize(
    ("url", "place", "authority"),
    [
        ("https://api.example.com", ("api.example.com", 443, True, "/v1"), "api.example.com"),
        ("https://api.example.com/v1/", ("api.example.com", 443, True, "/v1"), "api.example.com"),
        ("http://ollama.home:11434", ("ollama.home", 11434, False, "/v1"), "ollama.home:11434"),
        ("http://[fd00::7]:80/x", ("fd00::7", 80, False, "/x"), "[fd00::7]"),
        ("https://h/v1beta/openai", ("h", 443, True, "/v1beta/openai"), "h"),
        ("https://h:80", ("h", 80, True, "/v1"), "h:80"),
    ],
)
def test_a_url_says_where(url: str, place: tuple[str, int, bool, str], authority: str) -> None:
    assert parse(url) == Place(*place)
    assert parse(url).authority == authority


@pytest.mark.parametrize(
    "url",
    [
        "api.example.com",
        "ftp://host",
        "https://",
        "https://user:password@host",
        "https://host?api-version=1",
        "https://host/v1#x",
        "https://host:99999",
        "https://host/v1\r\nx-evil: 1",
        "https://host/v1 HTTP/1.1",
        "https://host\n",
        "https://hö.st",
    ],
)
def test_what_holds_secrets_or_ends_a_line_is_none(url: str) -> None:
    with pytest.raises(ValueError) as error:
        parse(url)
    assert "password" not in str(error.value)


def test_limits_are_usual_where_none_is_set_and_ones_own_otherwise() -> None:
    usual = {
        "openai": (100, 50_000),
        "ollama": (100, 50_000),
        "llamacpp": (120, 60_000),
        "vllm": (50, 100_000),
    }
    for provider, (rpm, tpm) in usual.items():
        assert providers.limits({"provider": provider}, {}) == {"rpm": rpm, "tpm": tpm}
    assert providers.limits({}, {"concurrency": 2}) == {
        **{"rpm": 100, "tpm": 50_000},
        "concurrency": 2,
    }
    assert providers.limits({}, {"tpm": 9}) == {"tpm": 9}


def test_a_handed_key_is_for_one_place_and_does_not_show_itself() -> None:
    key = Handed(url="https://a", secret="s", entry="k", key="sk-1")
    assert key.is_for("https://a", "s", "k")
    assert not any((key.is_for("https://b", "s", "k"), key.is_for("https://a", "s", "other")))
    assert "sk-1" not in repr(key)


def test_a_row_names_its_owner() -> None:
    assert providers.owner(providers.row("team-a", "gpt-4.1")) == ("team-a", "gpt-4.1")


@pytest.mark.parametrize("key", ["", "two words", "line\n", "ü", "x" * 4097])
def test_what_cannot_stand_in_a_header_is_no_key(key: str) -> None:
    assert not providers.sendable(key)
    assert providers.sendable("sk-" + "x" * 200)
