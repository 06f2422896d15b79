"""The commands of `kubectl pippin key`."""

from __future__ import annotations

import argparse
import base64
import binascii
import json
import shlex
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pippin_contract.wire import ROTATE_ANNOTATION, SECRET_API_KEY, SECRET_BASE_URL

from .kubectl import Failed, Kubectl
from .manifest import LIMITS, api_key

KIND = "apikeys.pippin.dev"
#: Seconds between two looks at a key that the operator is at work on.
LOOK = 0.3

Status = dict[str, Any]


def create(kubectl: Kubectl, typed: argparse.Namespace) -> None:
    """Create one, wait until it is good, say where it is."""
    body = api_key(typed)
    if typed.dry_run:
        print(kubectl.create(body, "--dry-run=server", "-o", "yaml"), end="")
        return
    kubectl.create(body)
    key = _wait(kubectl, typed.name, typed.timeout, lambda status: status.get("phase") == "Active")
    print(f"key {_where(key)} is good, its id is {key['status']['keyId']}")
    if typed.reveal:
        _reveal(kubectl, key)
        return
    flags = "".join(f" {shlex.quote(flag)}" for flag in kubectl.flags)
    print(f"to see it:  kubectl pippin key show {typed.name} --reveal{flags}")


def show(kubectl: Kubectl, typed: argparse.Namespace) -> None:
    """Everything but the key, or the key for an application."""
    key = kubectl.json("get", KIND, typed.name)
    if typed.reveal or typed.env:
        _reveal(kubectl, key, env=typed.env)
        return
    for name, value in _facts(key):
        print(f"{name + ':':<12} {value}")


def usage(kubectl: Kubectl, typed: argparse.Namespace) -> None:
    """What the key has used, by model, as the operator wrote it down within the last minute."""
    key = kubectl.json("get", KIND, typed.name)
    used: dict[str, Any] = key.get("status", {}).get("usage") or {}
    if typed.output == "json":
        print(json.dumps(used, indent=2))
        return
    if not used:
        print(f"key {_where(key)} has not been used, or not been looked at yet")
        return
    rows = [_USAGE, *([str(model.get(name, 0)) for name in _FIELDS] for model in used["models"])]
    rows.append(["", *(str(used.get(name, 0)) for name in _FIELDS[1:-1]), ""])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())
    print(f"tokens today ({used['window']}, UTC): {used['tokensToday']}")
    for one in used.get("keys", ()):
        print(f"key {one['id']} was last used at {one['lastUsedAt']}")


#: Columns of usage, and where they stand in the status.
_USAGE = ["MODEL", "REQUESTS", "ERRORS", "PROMPT", "COMPLETION", "CACHED", "LAST USED"]
_FIELDS = ["model", "requests", "errors", "promptTokens", "completionTokens", "cachedTokens"]
_FIELDS += ["lastUsedAt"]


def rotate(kubectl: Kubectl, typed: argparse.Namespace) -> None:
    """Replace the key; the one before stays good for the overlap."""
    before = kubectl.json("get", KIND, typed.name)
    if before["spec"].get("existingSecretRef"):
        name = before["spec"]["existingSecretRef"]["name"]
        raise Failed(f"this key is one of your own: write another into the Secret {name}")
    old = before.get("status", {}).get("keyId")
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    kubectl.run("annotate", "--overwrite", KIND, typed.name, f"{ROTATE_ANNOTATION}={now}")

    def replaced(status: Status) -> bool:
        return bool(status.get("keyId")) and status["keyId"] != old

    key = _wait(kubectl, typed.name, typed.timeout, replaced)
    print(f"key {_where(key)} has the id {key['status']['keyId']} now")
    for row in key["status"].get("keys", ()):
        if row["id"] == old:
            print(f"the one before, {old}, is good until {row.get('notAfter', 'further notice')}")


def revoke(kubectl: Kubectl, typed: argparse.Namespace) -> None:
    """End the key and delete its Secret, for good."""
    key = kubectl.json("get", KIND, typed.name)
    if not typed.yes:
        if not sys.stdin.isatty():
            raise Failed("nobody is there to ask: say --yes to end the key for good")
        answer = input(f"End {_where(key)} for good, and every application that uses it? [y/N] ")
        if answer.strip().lower() not in ("y", "yes"):
            raise Failed("nothing was changed")
    kubectl.run("delete", KIND, typed.name)
    print(f"key {_where(key)} is ended: gateways refuse it within a second")


def pause(kubectl: Kubectl, typed: argparse.Namespace) -> None:
    """Refuse the key until it is resumed."""
    _enable(kubectl, typed, enabled=False)


def resume(kubectl: Kubectl, typed: argparse.Namespace) -> None:
    """Take a paused key again."""
    _enable(kubectl, typed, enabled=True)


def _enable(kubectl: Kubectl, typed: argparse.Namespace, *, enabled: bool) -> None:
    spec = json.dumps({"spec": {"enabled": enabled}})
    kubectl.run("patch", KIND, typed.name, "--type=merge", "-p", spec)

    def seen(status: Status) -> bool:
        return (status.get("phase") == "Disabled") is not enabled

    key = _wait(kubectl, typed.name, typed.timeout, seen)
    print(f"key {_where(key)} is {key['status']['phase']}")


def _wait(
    kubectl: Kubectl, name: str, timeout: float, until: Callable[[Status], bool]
) -> dict[str, Any]:
    """The key once the operator has done its part. Raises Failed that says why it has not."""
    deadline = time.monotonic() + timeout
    while True:
        key: dict[str, Any] = kubectl.json("get", KIND, name)
        if until(key.get("status", {})):
            return key
        if time.monotonic() > deadline:
            raise Failed(
                f"the operator has not done its part within {timeout:g} s: {_why(key)};"
                f" see: kubectl describe {KIND} {name}"
            )
        time.sleep(LOOK)


def _why(key: dict[str, Any]) -> str:
    return _trouble(key) or "it has not looked at the key yet; does it run?"


def _trouble(key: dict[str, Any]) -> str:
    """Reason and message of Ready while it is not true."""
    for condition in key.get("status", {}).get("conditions", ()):
        if condition["type"] == "Ready" and condition["status"] != "True":
            return f"{condition['reason']}: {condition['message']}"
    return ""


def _where(key: dict[str, Any]) -> str:
    return f"{key['metadata']['namespace']}/{key['metadata']['name']}"


def _facts(key: dict[str, Any]) -> list[tuple[str, str]]:
    spec, status = key["spec"], key.get("status", {})
    limits = spec.get("limits") or {}
    told = [f"{field} {limits[field]}" for field in LIMITS.values() if field in limits]
    facts = [
        ("Key", _where(key)),
        ("Phase", status.get("phase", "not looked at yet")),
        ("Id", status.get("keyId", "")),
        ("Owner", spec.get("owner", "")),
        ("Models", ", ".join(spec.get("models") or ["none"])),
        ("Limits", ", ".join(told) or "none"),
        ("Expires", spec.get("expiresAt", "never")),
        ("Last used", status.get("lastUsedAt", "")),
        ("Secret", (status.get("secretRef") or {}).get("name", "")),
    ]
    facts += [
        ("Also good", f"{row['id']} until {row['notAfter']}")
        for row in status.get("keys", ())
        if row["id"] != status.get("keyId") and row.get("notAfter")
    ]
    facts.append(("Trouble", _trouble(key)))
    return [(name, value) for name, value in facts if value]


def _reveal(kubectl: Kubectl, key: dict[str, Any], *, env: bool = False) -> None:
    ref = key.get("status", {}).get("secretRef")
    if not ref:
        raise Failed(f"{_where(key)} has no key yet: {_why(key)}")
    data = kubectl.json("get", "secret", ref["name"]).get("data", {})
    try:
        value = base64.b64decode(data[ref.get("key", SECRET_API_KEY)]).decode()
        url = base64.b64decode(data.get(SECRET_BASE_URL, "")).decode()
    except (KeyError, binascii.Error, UnicodeDecodeError) as error:
        raise Failed(f"the Secret {ref['name']} holds no key") from error
    if not env:
        print(value)
        return
    print(f"export OPENAI_API_KEY={shlex.quote(value)}")
    if url:
        print(f"export OPENAI_BASE_URL={shlex.quote(url)}")
