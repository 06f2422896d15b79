"""Processes that outlive their starter, recorded so that exactly they can be ended later.

A record holds pid and start time: a pid alone may have gone to someone else since.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_PAUSE = 0.05
_TAIL_LINES = 12


class StartFailed(Exception):
    """A component did not come up; the message names it, its last words and its log."""


@dataclass(frozen=True)
class Record:
    """What is kept of a started process."""

    name: str
    pid: int
    started: str
    log: str


class Supervisor:
    """Starts and ends the processes of one state directory (`run/` records, `logs/` output)."""

    def __init__(self, state: Path) -> None:
        self._run = state / "run"
        self._logs = state / "logs"
        # Children of this very process must be reaped, or they stay as zombies.
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def log(self, name: str) -> Path:
        """Where a process of that name writes."""
        return self._logs / f"{name}.log"

    def start(
        self, name: str, argv: Sequence[str], env: Mapping[str, str], *, cwd: Path | None = None
    ) -> Record:
        """Start in a session of its own, so that a Ctrl-C in the terminal does not reach it."""
        self._run.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        with self.log(name).open("ab") as log:
            child = subprocess.Popen(
                argv,
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._children[child.pid] = child
        record = Record(name, child.pid, start_time(child.pid) or "", str(self.log(name)))
        self._file(name).write_text(json.dumps(asdict(record)))
        return record

    def wait_ready(self, name: str, probe: Callable[[], bool], *, within: float) -> None:
        """Until the probe says yes. Raises StartFailed when it ends first or takes too long."""
        deadline = time.monotonic() + within
        while not probe():
            if not self.running(name):
                raise StartFailed(self._story(name, "ended while starting"))
            if time.monotonic() > deadline:
                raise StartFailed(self._story(name, f"was not ready within {within:.0f} s"))
            time.sleep(_PAUSE)

    def running(self, name: str) -> bool:
        """Whether the recorded process is still the one that was started, and alive."""
        record = self.record(name)
        return record is not None and self._alive(record)

    def record(self, name: str) -> Record | None:
        """What was started last under this name and not stopped since."""
        try:
            return Record(**json.loads(self._file(name).read_text()))
        except FileNotFoundError:
            return None

    def names(self) -> list[str]:
        """Everything on record, latest start first."""
        for child in self._children.values():
            child.poll()  # someone else may have ended it; then it is ours to reap
        files = sorted(self._run.glob("*.json"), key=lambda f: f.stat().st_mtime_ns, reverse=True)
        return [file.stem for file in files]

    def stop(self, name: str, *, kill: bool = False, within: float = 20) -> None:
        """End it (politely unless `kill`) and forget it; nothing happens when it is not there."""
        record = self.record(name)
        if record is None:
            return
        if self._alive(record):
            self._signal(record, signal.SIGKILL if kill else signal.SIGTERM)
            if not self._gone(record, within):
                self._signal(record, signal.SIGKILL)
                self._gone(record, within)
        self._file(name).unlink(missing_ok=True)

    def tail(self, name: str) -> str:
        """The last lines that a process wrote."""
        with contextlib.suppress(FileNotFoundError):
            lines = self.log(name).read_text(errors="replace").splitlines()
            return "\n".join(lines[-_TAIL_LINES:])
        return ""

    def _story(self, name: str, what: str) -> str:
        return f"{name} {what}; its log {self.log(name)} ends:\n{self.tail(name)}"

    def _file(self, name: str) -> Path:
        return self._run / f"{name}.json"

    def _alive(self, record: Record) -> bool:
        if child := self._children.get(record.pid):
            return child.poll() is None
        return start_time(record.pid) == record.started

    def _gone(self, record: Record, within: float) -> bool:
        deadline = time.monotonic() + within
        while self._alive(record):
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE)
        return True

    def _signal(self, record: Record, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.pid, number)


def start_time(pid: int) -> str | None:
    """When a process began, in the machine's own words; None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self/stat").exists() else _start_time_by_ps(pid)
    # The name in parentheses may hold anything; state is field 3, the start time field 22.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def _start_time_by_ps(pid: int) -> str | None:
    found = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or None
