"""kubectl as a function: it knows the cluster, the login and the namespace of who types."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class Failed(Exception):
    """What kubectl said, for the person who typed; and its exit code."""

    def __init__(self, said: str, code: int = 1) -> None:
        super().__init__(said.strip() or f"kubectl ended with {code}")
        self.code = code


@dataclass(frozen=True, slots=True)
class Kubectl:
    """`flags` choose cluster, user and namespace, and go before every command."""

    flags: Sequence[str] = ()

    def run(self, *arguments: str, stdin: str = "") -> str:
        """What it prints. Raises Failed."""
        command = ["kubectl", *self.flags, *arguments]
        try:
            done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise Failed("kubectl is not on PATH: install it first") from error
        if done.returncode:
            raise Failed(done.stderr, done.returncode)
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """The object that it prints."""
        return json.loads(self.run(*arguments, "-o", "json"))

    def create(self, body: dict[str, Any], *arguments: str) -> str:
        """Create an object. Raises Failed when there is one of that name."""
        return self.run("create", *arguments, "-f", "-", stdin=json.dumps(body))
