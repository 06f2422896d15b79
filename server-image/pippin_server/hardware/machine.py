"""The one door to the machine: files, folders, small programs. Nothing here raises."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

#: Seconds for one program.
_PROGRAM = 3.0
#: Longest file that anybody reads here.
_LONGEST = 1024 * 1024
#: Where programs are when PATH is a server's.
_PLACES = "/usr/bin:/usr/sbin:/bin:/sbin:/usr/local/bin:/usr/lib/wsl/lib:/usr/local/nvidia/bin"


class Machine(Protocol):
    """A real one, or the records of one."""

    system: str
    architecture: str

    def read(self, path: str) -> str:
        """A file's text; empty when it is not there, or not for us."""
        ...

    def names(self, directory: str) -> Sequence[str]:
        """What is in a directory, sorted; nothing when it is not there."""
        ...

    def run(self, *command: str) -> str:
        """What a program printed; empty when it is not there, failed or took too long."""
        ...

    def cpus(self) -> tuple[int, int]:
        """The machine's CPUs, and those that this process may run on."""
        ...


class ThisMachine:
    """Where the process runs."""

    system = platform.system()
    architecture = platform.machine()

    def read(self, path: str) -> str:
        try:
            with Path(path).open("rb") as file:
                return file.read(_LONGEST).decode(errors="replace")
        except (OSError, ValueError):
            return ""

    def names(self, directory: str) -> Sequence[str]:
        try:
            return sorted(os.listdir(directory))
        except OSError:
            return ()

    def run(self, *command: str) -> str:
        program = shutil.which(command[0]) or shutil.which(command[0], path=_PLACES)
        if program is None:
            return ""
        try:
            done = subprocess.run(
                [program, *command[1:]],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_PROGRAM,
                check=False,
            )
        except (OSError, subprocess.SubprocessError):
            return ""
        return done.stdout.decode(errors="replace") if done.returncode == 0 else ""

    def cpus(self) -> tuple[int, int]:
        total = os.cpu_count() or 1
        allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
        return total, allowed
