"""The status as a page: pure, from what JSON tells too.

Every text goes through `element`, which escapes it: there is no other way into the page. No
assets, no form; a policy lets in exactly the style and the script that stand here.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from pippin_edge.asgi import Headers

#: Rows of a table; JSON has all of them.
MOST = 500
#: Seconds between two looks, with script and without.
EVERY, EVERY_WITHOUT = 5, 15

_STYLE = """
:root{color-scheme:light dark;--fg:#1b1f24;--bg:#fff;--soft:#57606a;--line:#d0d7de;--ok:#116329;
--bad:#a40e26;--warn:#7d4e00;--card:#f6f8fa}
@media(prefers-color-scheme:dark){:root{--fg:#e6edf3;--bg:#0d1117;--soft:#9aa4af;--line:#30363d;
--ok:#56d364;--bad:#ff8f8f;--warn:#e3b341;--card:#161b22}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:70rem;
margin:0 auto;padding:1rem}
h1{font-size:1.4rem;margin:.2rem 0}h2,caption{font-size:1.1rem;font-weight:600;text-align:left}
caption{padding:.4rem 0}.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;margin:1rem 0}
th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid var(--line)}
thead th{color:var(--soft);font-weight:600;white-space:nowrap}
tbody th{font-weight:600;overflow-wrap:break-word;min-width:9rem}
th.n,tdth.n,td.n{text-align:right;font-variant-numeric:tabular-nums}.soft{color:var(--soft)}
.ok{color:var(--ok)}.bad{color:var(--bad)}.warn{color:var(--warn)}
.says{border-left:.3rem solid;padding:.5rem .8rem;background:var(--card);margin:1rem 0}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem;margin:1rem 0}
dt{color:var(--soft)}dd{margin:0}
.bar{text-align:right;margin:0;color:var(--soft)}td:last-child{min-width:12rem}
pre{overflow-x:auto;background:var(--card);padding:.6rem}button{font:inherit;padding:.2rem .7rem}
"""

_SCRIPT = f"""
const button=document.querySelector("button"),told=document.querySelector("#told");
let paused=false;button.hidden=false;
button.onclick=()=>{{paused=!paused;button.textContent=paused?"Go on":"Pause";
told.textContent=paused?"Stands still.":"";if(!paused)look()}};
async function look(){{
 if(paused||document.hidden)return;
 try{{
  const asked={{headers:{{accept:"text/html"}},cache:"no-store"}};
  const got=await fetch(location.origin+location.pathname,asked);
  if(!got.ok)throw new Error(got.status);
  const page=new DOMParser().parseFromString(await got.text(),"text/html");
  if(paused)return;
  document.title=page.title;
  document.querySelector("main").replaceWith(page.querySelector("main"));
  told.textContent="";
 }}catch(error){{told.textContent="The gateway does not answer; this is what it said last."}}
}}
setInterval(look,{EVERY}000);document.addEventListener("visibilitychange",look);
"""

#: Columns, by name and class.
_OF_MODELS = (
    ("Model", ""),
    ("Asked for as", ""),
    ("Replicas", "n"),
    ("In flight", "n"),
    ("Waiting", "n"),
    ("State", ""),
)
_OF_REPLICAS = (("Replica", ""), ("Model", ""), ("In flight", "n"), ("Breaker", ""))


class Html(str):
    """Text that is escaped already."""

    __slots__ = ()


_NOTHING = Html()


def element(tag: str, *inside: object, **attributes: str) -> Html:
    """`class_` is class; what is not Html is text."""
    given = "".join(
        f' {n.rstrip("_").replace("_", "-")}="{html.escape(v)}"' for n, v in attributes.items() if v
    )
    return Html(f"<{tag}{given}>{_joined(inside)}</{tag}>")


def _joined(parts: Iterable[object]) -> Html:
    return Html("".join(p if isinstance(p, Html) else html.escape(str(p)) for p in parts))


def _name(text: str) -> Html:
    """Somebody else's text: it may run in another direction, and must not turn ours round."""
    return element("bdi", text)


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


HEADERS: Headers = [
    (b"cache-control", b"no-store"),
    (b"vary", b"accept, authorization"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        f"default-src 'none'; style-src 'sha256-{_hash(_STYLE)}'; "
        f"script-src 'sha256-{_hash(_SCRIPT)}'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'".encode(),
    ),
]


def status(told: dict[str, Any]) -> bytes:
    """Of what a signed-in person may see."""
    main = element(
        "main",
        element("h1", "Pippin gateway ", _name(told["gateway"])),
        _banner(told),
        _overview(told),
        _models(told["served"]),
        _replicas(told["served"]),
    )
    bar = element(
        "p",
        Html('<button type="button" hidden>Pause</button> '),
        element("span", id="told", role="status"),
        class_="bar",
    )
    again = Html(f'<noscript><meta http-equiv="refresh" content="{EVERY_WITHOUT}"></noscript>')
    title = "Pippin: " + ("ready" if told["status"] == "ok" else "not ready")
    return _document(title, bar, main, Html(f"<script>{_SCRIPT}</script>"), head=again)


def sign_in() -> bytes:
    """Of who did not show the token."""
    how = (
        "This page names the models of all namespaces, so it is opened by the gateways'"
        " administration token. Load it again, leave the user name empty and give the token as"
        " password. It lies in the Secret pippin-gateway-admin beside the gateway:"
    )
    command = (
        "kubectl -n pippin-system get secret pippin-gateway-admin"
        " -o go-template='{{.data.token | base64decode}}'"
    )
    main = element("main", element("h1", "Sign in"), element("p", how), element("pre", command))
    return _document("Pippin: sign in", main)


def _document(title: str, *body: Html, head: Html = _NOTHING) -> bytes:
    opened = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
    )
    parts = Html(opened), element("title", title), Html(f"<style>{_STYLE}</style>"), head
    whole = element("html", element("head", *parts), element("body", *body), lang="en")
    return f"<!doctype html>{whole}".encode(errors="replace")


def _banner(told: dict[str, Any]) -> Html:
    reason = told["reason"]
    if told["status"] != "ok":
        return element("p", "Not ready: ", reason, class_="says bad")
    if reason:
        return element("p", "Ready, ", reason, class_="says warn")
    return element("p", "Ready.", class_="says ok")


def _overview(told: dict[str, Any]) -> Html:
    rows = [
        ("As of", f"{_time(told['at'])}, running since {_time(told['started_at'])}"),
        ("Version", told["version"]),
        ("API server", _followed(told["synced"])),
        ("Limits", told["limits"]),
        ("Requests", f"{told['in_flight']} in flight, {told['waiting']} waiting for a replica"),
        ("Known", f"keys: {told['keys']}, models: {told['models']}, replicas: {told['replicas']}"),
        ("Breakers open", told["breakers_open"]),
    ]
    return element("dl", *(cell for name, value in rows for cell in _pair(name, value)))


def _pair(name: str, value: object) -> tuple[Html, Html]:
    return element("dt", name), element("dd", value)


def _followed(synced: dict[str, dict[str, Any]]) -> object:
    lost = [
        f"{kind} since {_time(of['false_since'])}" if of["false_since"] else f"{kind} never"
        for kind, of in synced.items()
        if not of["synced"]
    ]
    if not lost:
        return element("span", "followed", class_="ok")
    return element("span", "not heard of: " + ", ".join(lost), class_="bad")


def _models(served: Sequence[dict[str, Any]]) -> Html:
    return _table("Models", _OF_MODELS, [_model(one) for one in served])


def _model(one: dict[str, Any]) -> Html:
    ready, wanted = one["ready_replicas"], one["wanted"]
    asked = [part for name in one["names"] for part in (", ", _name(name))][1:]
    return _row(
        _name(one["model"]),
        (_joined(asked), ""),
        (f"{ready} of {wanted}", "n"),
        (one["in_flight"], "n"),
        (one["waiting"], "n"),
        _state(one),
    )


def _state(one: dict[str, Any]) -> tuple[str, str]:
    if not one["ready_replicas"]:
        return f"nobody answers: {one['reason']}", "bad" if one["wanted"] else "soft"
    alone = sum(replica["breaker"] != "closed" for replica in one["replicas"])
    if alone == one["ready_replicas"]:
        return "every replica failed again and again", "bad"
    return (f"{alone} failed again and again", "warn") if alone else ("ready", "ok")


def _replicas(served: Sequence[dict[str, Any]]) -> Html:
    rows = [_replica(one["model"], replica) for one in served for replica in one["replicas"]]
    return _table("Replicas", _OF_REPLICAS, rows)


def _replica(model: str, one: dict[str, Any]) -> Html:
    return _row(_name(one["pod"]), (_name(model), ""), (one["in_flight"], "n"), _breaker(one))


def _breaker(one: dict[str, Any]) -> tuple[str, str]:
    failures = f"failures in a row: {one['failures']}"
    if one["breaker"] == "open":
        return f"open: {failures}, left alone for {one['retry_in_s']} s", "bad"
    if one["breaker"] == "half-open":
        return f"half-open: {failures}, the next request tries it", "warn"
    return (f"closed, {failures}", "warn") if one["failures"] else ("closed", "ok")


def _row(first: object, *others: tuple[object, str]) -> Html:
    cells = [element("td", value, class_=kind) for value, kind in others]
    return element("tr", element("th", first, scope="row"), *cells)


def _table(title: str, names: Sequence[tuple[str, str]], rows: Sequence[Html]) -> Html:
    if not rows:
        return element("section", element("h2", title), element("p", "None.", class_="soft"))
    head = element("tr", *(element("th", name, class_=kind, scope="col") for name, kind in names))
    table = element(
        "table", element("caption", title), element("thead", head), element("tbody", *rows[:MOST])
    )
    left = len(rows) - MOST
    more = element("p", f"{left} more are told as JSON.", class_="soft") if left > 0 else ""
    scroll = element("div", table, class_="scroll", tabindex="0", role="group", aria_label=title)
    return element("section", scroll, more)


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
