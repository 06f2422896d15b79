"""/status: numbers for everybody, names for who shows the administration token."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest

from pippin_gateway import page
from pippin_gateway.status import prefers_html
from support.eventually import eventually
from support.gateway import ADMIN_TOKEN, Running, model_object, pod_object
from support.upstreams import Turn, upstream

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
HOSTILE = "</td><script>alert('x')</script>&lt;img src=x onerror=\"y\">\u202eexe"
CHAT = "/v1/chat/completions"


class Page(HTMLParser):
    """What a browser makes of it: elements, and texts by the element that they stand in."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag != "meta":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open[-1] if self._open else "", data))

    def of(self, tag: str) -> list[str]:
        return [text for found, text in self.texts if found == tag]

    @property
    def words(self) -> str:
        return " ".join(text for tag, text in self.texts if tag not in ("style", "script"))


async def look(gateway: Running, token: str = ADMIN_TOKEN, **headers: str) -> httpx.Response:
    """As a browser does, with the token as the password of Basic."""
    async with gateway.client("") as http:
        auth = httpx.BasicAuth("anybody", token) if token else None
        return await http.get("/status", headers=BROWSER | headers, auth=auth)


async def told(gateway: Running) -> dict[str, Any]:
    async with gateway.client(ADMIN_TOKEN) as http:
        found: dict[str, Any] = (await http.get("/status")).json()
        return found


async def test_a_browser_is_asked_for_the_token_and_told_where_it_lies(gateway: Running) -> None:
    got = await look(gateway, "")
    assert got.status_code == 401 and got.headers["www-authenticate"].startswith("Basic ")
    assert "pippin-gateway-admin" in got.text and "qwen" not in got.text


@pytest.mark.parametrize("token", ["wrong", "ümlaut", "x" * 5000])
async def test_a_wrong_token_opens_nothing(gateway: Running, token: str) -> None:
    assert (await look(gateway, token)).status_code == 401
    assert (await look(gateway, gateway.key.key)).status_code == 401, "a key is none"
    assert (await look(gateway, "", authorization="Basic not-base64")).status_code == 401
    async with gateway.client("wrong") as http:
        got = await http.get("/status")
    assert got.status_code == 401 and got.json()["error"]["code"] == "invalid_api_key"


async def test_scripts_get_numbers_without_a_token_and_names_with_it(gateway: Running) -> None:
    async with gateway.client("") as http:
        public = await http.get("/status")
    assert public.json()["models"] == 1 and "qwen" not in public.text
    known = await told(gateway)
    assert known["served"][0]["model"] == "team-a/qwen"
    assert public.json().items() <= known.items()


async def test_basic_opens_the_status_and_nothing_else(gateway: Running) -> None:
    """A browser would send it along with whatever another page makes it ask for."""
    async with gateway.client("") as http:
        for path in ("/admin/usage", "/v1/models"):
            got = await http.get(path, auth=httpx.BasicAuth("", ADMIN_TOKEN))
            assert got.status_code == 401


async def test_the_page_says_what_every_model_and_replica_does(gateway: Running) -> None:
    async def hanging(turn: Turn) -> None:
        await turn.hang()

    lacking = {"type": "Ready", "status": "False", "reason": "InsufficientGPU"}
    gateway.store.put("modeldeployments", model_object("large"))
    wants = model_object("none", model={"aliases": ["gpt-4o"]}, timeouts={"queue": "1m"})
    gateway.store.put("modeldeployments", wants)
    gateway.store.put("modeldeployments", model_object("off", suspend=True))
    large = model_object("large", replicas=3) | {"status": {"conditions": [lacking]}}
    gateway.store.put("modeldeployments", large)
    async with upstream(hanging) as replica, gateway.client() as http:
        gateway.route(replica.port)
        bodies = [{"model": name, "messages": []} for name in ("qwen", "qwen", "gpt-4o")]
        asking = [asyncio.create_task(http.post(CHAT, json=body)) for body in bodies]

        async def busy() -> bool:
            known = await told(gateway)
            return (known["in_flight"], known["waiting"]) == (2, 1)

        await eventually(busy, within=5)
        found = Page((await look(gateway)).text)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    assert "2 in flight, 1 waiting for a replica" in found.of("dd")
    assert "gpt-4o" in found.of("bdi") and "qwen-0" in found.of("bdi")
    cells = found.of("td")
    assert "1 of 1" in cells and "0 of 3" in cells and "ready" in cells
    assert "nobody answers: there is no free GPU for it" in cells
    assert any("spec.suspend" in cell for cell in cells)
    assert "counted by this gateway alone" in found.of("dd")
    assert found.of("title") == ["Pippin: ready"]


async def test_the_page_says_which_replicas_are_left_alone(gateway: Running) -> None:
    async def resetting(turn: Turn) -> None:
        turn.reset()

    once = {"failures": 1, "cooldown": "1m", "halfOpenRequests": 1}
    gateway.store.put("modeldeployments", model_object(circuitBreaker=once))
    async with upstream(resetting) as replica, gateway.client() as http:
        gateway.route(replica.port)
        await http.post(CHAT, json={"model": "qwen", "messages": []})
    found = Page((await look(gateway)).text)
    (cell,) = [text for text in found.of("td") if text.startswith("open: ")]
    assert re.fullmatch(r"open: failures in a row: \d, left alone for \d\d\.\d s", cell)
    assert "every replica failed again and again" in found.of("td")
    (replica_told,) = (await told(gateway))["served"][0]["replicas"]
    assert replica_told["breaker"] == "open" and 40 < replica_told["retry_in_s"] <= 60


async def test_the_page_says_that_the_api_server_is_away(gateway: Running) -> None:
    gateway.store.disconnected("pods", "test")
    found = Page((await look(gateway)).text)
    assert "Ready, serving from what was known at" in found.words
    assert "not heard of: pods since 20" in found.words
    gateway.gateway.health.draining = True
    found = Page((await look(gateway)).text)
    assert "Not ready: draining" in found.words and found.of("title") == ["Pippin: not ready"]


async def test_names_are_text_whatever_they_are(gateway: Running) -> None:
    """The API server refuses such names; the page does not rely on it."""
    gateway.route(1)
    before = Page((await look(gateway)).text)
    names = {"name": HOSTILE, "aliases": [HOSTILE + "2"]}
    gateway.store.put("modeldeployments", model_object("odd" + HOSTILE, model=names))
    gateway.store.put("pods", pod_object("pod" + HOSTILE, 1, "odd" + HOSTILE))
    gateway.store.refresh()
    found = Page((await look(gateway)).text)
    assert {"pod" + HOSTILE, HOSTILE, HOSTILE + "2"} <= set(found.of("bdi"))
    assert "team-a/odd" + HOSTILE in found.of("bdi")
    assert {tag for tag, _ in found.elements} == {tag for tag, _ in before.elements}
    assert found.of("script") == before.of("script")
    assert not any(name.startswith("on") for _, given in found.elements for name in given)


async def test_nothing_runs_and_nothing_is_fetched_but_what_stands_in_the_page(
    gateway: Running,
) -> None:
    for got in (await look(gateway), await look(gateway, "")):
        policy = got.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
        found = Page(got.text)
        for kind in ("style", "script"):
            for text in found.of(kind):
                digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
                assert f"{kind}-src 'sha256-{digest}'" in policy
        assert not any({"src", "href", "style"} & given.keys() for _, given in found.elements)
        assert got.headers["cache-control"] == "no-store"
        assert got.headers["x-content-type-options"] == "nosniff"


async def test_the_page_can_be_read_aloud(gateway: Running) -> None:
    gateway.route(1)
    found = Page((await look(gateway)).text)
    assert ("html", {"lang": "en"}) in found.elements
    assert found.of("caption") == ["Models", "Replicas"]
    headers = [given for tag, given in found.elements if tag == "th"]
    assert headers and all(given.get("scope") in ("row", "col") for given in headers)
    assert any(given.get("role") == "status" for _, given in found.elements)


async def test_a_long_table_is_cut_and_json_is_not(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "MOST", 2)
    for number in range(4):
        gateway.store.put("modeldeployments", model_object(f"m{number}"))
    gateway.store.refresh()
    assert "3 more are told as JSON." in Page((await look(gateway)).text).words
    assert len((await told(gateway))["served"]) == 5


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (BROWSER["accept"], True),
        ("text/html", True),
        ("TEXT/HTML;q=0.8, application/json;q=0.5", True),
        ("application/json, text/html;q=0.9", False),
        ("application/json", False),
        ("text/html;q=0", False),
        ("text/html;q=much", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_html_is_for_who_prefers_it(accept: str, html: bool) -> None:
    assert prefers_html(accept.encode()) is html
