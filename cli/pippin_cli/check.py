"""`kubectl pippin check`: would these manifests work, each for itself and all together?"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from pippin_contract.judge import (
    KEY,
    MODEL,
    SECRET,
    Problem,
    Ref,
    World,
    problems,
    summary,
    wanted_secrets,
)

from .kubectl import Failed, Kubectl

KINDS = "modeldeployments.pippin.dev,apikeys.pippin.dev"
_OURS = (MODEL, KEY)

Raw = dict[str, Any]


def check(kubectl: Kubectl, typed: argparse.Namespace) -> None:
    """Print what is wrong. Nothing is changed. Raises Failed when something cannot work."""
    asked, found = _dry_run(kubectl, typed.filename)
    ours = [one for one in asked if one["kind"] in _OURS]
    world = World(_laid_over(_there(kubectl), ours), _looked(kubectl, asked, ours))
    found += problems(ours, world, datetime.now(UTC))
    for problem in found:
        print(problem)
    said = summary(len(asked), found)
    if any(problem.fatal for problem in found):
        raise Failed(said)
    print(said)


def _dry_run(kubectl: Kubectl, files: Iterable[str]) -> tuple[list[Raw], list[Problem]]:
    """The objects as the API server would take them, and what it would not take."""
    named = [f"--filename={file}" for file in files]
    done = kubectl.call("apply", "--dry-run=server", "--recursive", *named, "-o", "json")
    refused = [
        Problem(True, "the API server", line) for line in done.stderr.splitlines() if line.strip()
    ]
    if done.returncode == 0:
        refused = []  # advice only
    if not done.stdout.strip():
        return [], refused or [Problem(True, "kubectl", f"it ended with {done.returncode}")]
    told = json.loads(done.stdout)
    return (told["items"] if told["kind"] == "List" else [told]), refused


def _there(kubectl: Kubectl) -> list[Raw]:
    found: list[Raw] = kubectl.json("get", KINDS, "--all-namespaces")["items"]
    return found


def _laid_over(there: list[Raw], asked: list[Raw]) -> list[Raw]:
    def named(one: Raw) -> tuple[str, str, str]:
        return one["kind"], one["metadata"]["namespace"], one["metadata"]["name"]

    return list(({named(one): one for one in there} | {named(one): one for one in asked}).values())


def _looked(
    kubectl: Kubectl, asked: list[Raw], ours: list[Raw]
) -> dict[Ref, frozenset[str] | None]:
    """Secrets that are needed; those that may not be looked at are left out."""
    made = {
        (one["metadata"]["namespace"], one["metadata"]["name"]): frozenset(one.get("data") or {})
        for one in asked
        if one["kind"] == SECRET
    }
    looked: dict[Ref, frozenset[str] | None] = {}
    for ref in {ref for one in ours for ref, _ in wanted_secrets(one)}:
        if ref in made:
            looked[ref] = made[ref]
            continue
        namespace, name = ref
        done = kubectl.call(
            "get", "secret", name, f"--namespace={namespace}", "--ignore-not-found", "-o", "json"
        )
        if done.returncode:
            continue
        found = json.loads(done.stdout) if done.stdout.strip() else None
        looked[ref] = None if found is None else frozenset(found.get("data") or {})
    return looked
