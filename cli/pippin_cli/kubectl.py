"""kubectl as a function: it knows the cluster, the login and the namespace of who types."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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

    def call(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """However it ends."""
        command = ["kubectl", *self.flags, *arguments]
        try:
            return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise Failed("kubectl is not on PATH: install it first") from error

    def run(self, *arguments: str, stdin: str = "") -> str:
        """What it prints. Raises Failed."""
        done = self.call(*arguments, stdin=stdin)
        if done.returncode:
            raise Failed(done.stderr, done.returncode)
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """The object that it prints."""
        return json.loads(self.run(*arguments, "-o", "json"))

    def create(self, body: dict[str, Any], *arguments: str) -> str:
        """Create an object. Raises Failed when there is one of that name."""
        return self.run("create", *arguments, "-f", "-", stdin=json.dumps(body))

    @contextmanager
    def proxy(self, paths: str) -> Iterator[str]:
        """A URL of the API server on this machine, for paths that match the expression."""
        command = ["kubectl", *self.flags, "proxy", "--port=0", f"--accept-paths={paths}"]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None and process.stderr is not None
            said = process.stdout.readline()  # "Starting to serve on 127.0.0.1:PORT"
            if not said:
                raise Failed(process.stderr.read())
            yield f"http://{said.split()[-1]}"
        finally:
            process.terminate()
            process.communicate()
