"""How the demo speaks: numbered steps with their time, and failures that say what to do."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

STEPS = 6


class Failed(Exception):
    """A step did not work out; the message says why."""


class Story:
    """Prints; remembers which step is under way and where it logs."""

    def __init__(self) -> None:
        self.step_under_way = ""
        self.log: Path | None = None

    def say(self, text: str) -> None:
        """Lines that belong to the step under way."""
        for line in text.splitlines():
            print(f"      {line}", flush=True)

    def plain(self, text: str = "") -> None:
        """Lines that belong to no step."""
        print(text, flush=True)

    @contextlib.contextmanager
    def step(self, number: int, what: str, log: Path) -> Iterator[None]:
        """One of the numbered steps; `log` is what to read when it fails."""
        self.step_under_way, self.log = f"[{number}/{STEPS}] {what}", log
        self.plain(self.step_under_way)
        begun = time.monotonic()
        yield
        self.say(f"done in {time.monotonic() - begun:.1f} s")
