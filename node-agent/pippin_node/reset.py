"""End everything of a node on this machine: agent, Pods, files. Works without an API server."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from .process import Process
from .records import pod_dirs

LOCK = "agent.lock"
#: How long an agent may take to let go of its root, seconds.
AGENT_SECONDS = 20.0
PAUSE = 0.05


class InUse(Exception):
    """Another agent works on this root."""


class NotOurs(Exception):
    """The directory is no agent's root; nothing was touched."""


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the root for this process alone. Raises InUse. The lock goes with the process."""
    with (root / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise InUse(f"{root} is in use by pid {file.read().strip() or '?'}") from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def reset(root: Path, grace: float) -> int:
    """Stop the agent, end its processes, delete the root; how many processes were ended."""
    if not root.exists():
        return 0
    if not (root / LOCK).exists() and not (root / "node.json").exists():
        raise NotOurs(f"{root} is no root of pippin-node: nothing was removed")
    _stop_agent(root)
    with locked(root):
        ended = asyncio.run(end_all(root, grace))
    shutil.rmtree(root)
    return ended


def _stop_agent(root: Path) -> None:
    """Ask a running agent to end, and wait for its lock."""
    deadline = time.monotonic() + AGENT_SECONDS
    asked = False
    while True:
        try:
            with locked(root):
                return
        except InUse:
            pid = (root / LOCK).read_text().strip()
            if pid.isdecimal() and not asked:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGTERM)
                asked = True
            if time.monotonic() > deadline:
                raise
            time.sleep(PAUSE)


async def end_all(root: Path, grace: float) -> int:
    """SIGTERM to every process on record, SIGKILL to those left after the grace."""
    processes = []
    for pod in pod_dirs(root):
        for name in pod.containers():
            for number in pod.attempts(name):
                process = Process(pod.attempt(name, number), lambda: None)
                process.adopt()
                if process.exit is None:
                    processes.append(process)
    for process in processes:
        process.terminate()
    ends = [asyncio.create_task(process.exited.wait()) for process in processes]
    if ends:
        await asyncio.wait(ends, timeout=grace)
    for process in processes:
        process.kill()
    await asyncio.gather(*ends)
    return len(processes)
