"""One attempt of a container as the agent sees it: start, adopt, signal, learn of the end.

The process itself belongs to its shim (shim.py); the agent holds the read end of the `alive` FIFO
and is told of the end by end-of-file, the same for processes it started and for adopted ones, on
Linux and macOS, without polling and without being fooled by reused pids.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from . import shim
from .records import Json, read_json, write_json

#: Exit code of a process whose end nobody saw (the kubelet's word: ContainerStatusUnknown).
UNKNOWN_CODE = 137


@dataclass(frozen=True)
class Exit:
    """How an attempt ended."""

    code: int
    signal: int
    finished_at: str
    oom: bool = False
    error: str = ""
    unknown: bool = False


@dataclass(frozen=True)
class Launch:
    """What to run. `note` is kept beside the attempt, so that a restarted agent can read it."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    log_bytes: int
    log_files: int
    note: Json


class Process:
    """Call `start` or `adopt` once. `changed` is called from the loop on start and on end."""

    def __init__(self, directory: Path, changed: Callable[[], None]) -> None:
        self.directory = directory
        self.exited = asyncio.Event()
        self.exit: Exit | None = None
        self.pid: int | None = None
        self.started_at: str | None = None
        self._shim: int | None = None
        self._alive: int | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._changed = changed
        self._pending: int | None = None
        #: What was noted beside the attempt when it began.
        self.note: Json = {}

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def termination_log(self) -> Path:
        return self.directory / "termination-log"

    def start(self, launch: Launch) -> None:
        """Start the shim, which starts the program. Raises OSError when not even that works."""
        shutil.rmtree(self.directory, ignore_errors=True)  # of a start that failed half-way
        self.directory.mkdir(mode=0o700, parents=True)
        self.termination_log.touch(mode=0o600)
        self.note = dict(launch.note)
        write_json(self.directory / "launch.json", self.note)
        os.mkfifo(self.directory / "alive", 0o600)
        reader = os.open(self.directory / "alive", os.O_RDONLY | os.O_NONBLOCK)
        writer = os.open(self.directory / "alive", os.O_WRONLY)
        try:
            self._child = _spawn_shim(writer)
        except OSError:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        self._shim = self._child.pid
        self._listen(reader)
        order = {
            "argv": list(launch.argv),
            "env": dict(launch.env),
            "cwd": str(launch.cwd),
            "logBytes": launch.log_bytes,
            "logFiles": launch.log_files,
            "directory": str(self.directory),
            "aliveFd": writer,
        }
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its end will be told by the FIFO
            self._child.stdin.write(json.dumps(order).encode())
            self._child.stdin.close()

    def adopt(self) -> None:
        """Take over what an earlier agent started: running still, or ended meanwhile."""
        self.note = read_json(self.directory / "launch.json") or {}
        self._read_state()
        try:
            reader = os.open(self.directory / "alive", os.O_RDONLY | os.O_NONBLOCK)
        except FileNotFoundError:
            self._ended()
            return
        self._listen(reader)
        self._readable()

    def terminate(self) -> None:
        """Ask the program to end (SIGTERM to its first process, as runtimes do)."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the program and whatever it started."""
        self._signal(signal.SIGUSR1)

    def release(self) -> None:
        """Stop listening and leave the process alone (the agent ends, Pods go on)."""
        if self._alive is not None:
            asyncio.get_running_loop().remove_reader(self._alive)
            os.close(self._alive)
            self._alive = None
        if self._child is not None:
            self._child.returncode = 0  # no longer ours to wait for; silences the destructor

    def _listen(self, reader: int) -> None:
        self._alive = reader
        asyncio.get_running_loop().add_reader(reader, self._readable)

    def _readable(self) -> None:
        if self._alive is None:
            return
        try:
            data = os.read(self._alive, 64)
        except BlockingIOError:
            return
        self._read_state()
        if self._pending is not None and self.pid is not None:
            pending, self._pending = self._pending, None
            self._signal(pending)
        if not data:
            asyncio.get_running_loop().remove_reader(self._alive)
            os.close(self._alive)
            self._alive = None
            self._ended()
        self._changed()

    def _read_state(self) -> None:
        state = read_json(self.directory / "state.json")
        if state is not None:
            self._shim, self.pid = state["shim"], state["pid"]
            self.started_at = state["startedAt"]

    def _ended(self) -> None:
        if self._child is not None:
            self._child.wait()  # it closed the FIFO by exiting: this returns at once
        ending = read_json(self.directory / "exit.json")
        if ending is None:
            ending = self._lost()
        self.exit = Exit(
            code=ending["code"],
            signal=ending["signal"],
            finished_at=ending["finishedAt"],
            oom=ending.get("oom", False),
            error=ending.get("error", ""),
            unknown=ending.get("unknown", False),
        )
        self.exited.set()

    def _lost(self) -> Json:
        """The shim is gone without a word (killed, or the machine went down): leave no orphan."""
        state = read_json(self.directory / "state.json") or {}
        pid = state.get("pid")
        if pid and state.get("mark") and shim.start_mark(pid) == state["mark"]:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ending = {"code": UNKNOWN_CODE, "signal": 0, "finishedAt": now, "unknown": True}
        with contextlib.suppress(OSError):
            write_json(self.directory / "exit.json", ending)
        return ending

    def _signal(self, number: int) -> None:
        if self.pid is None:
            self._pending = number  # the shim is only now getting up: it could not pass it on
        elif self.exit is None and self._alive is not None and self._shim is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._shim, number)


def _spawn_shim(writer: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", shim.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(writer,),
        start_new_session=True,
        cwd="/",
        env={},
    )
