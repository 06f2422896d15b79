"""Native processes under their shim: start, output, end, and an agent that comes back."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pippin_node import logs
from pippin_node.process import Launch, Process
from support.eventually import eventually
from support.nodeagent import alive

Start = Callable[[str], Process]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Start Python code as attempt 0 of a container."""

    def begin(code: str, log_bytes: int = 10**6, python: str = sys.executable) -> Process:
        process = Process(tmp_path / "0", lambda: None)
        process.start(
            Launch(
                argv=[python, "-c", code],
                env={"SECRET": "s"},
                cwd=tmp_path,
                log_bytes=log_bytes,
                log_files=2,
                note={"crashes": 2},
            )
        )
        return process

    return begin


def written(process: Process) -> list[str]:
    with logs.Reader(process.log) as reader:
        return [line.text.decode() for line in reader.history()]


async def test_output_and_exit_code_are_on_record(start: Start) -> None:
    process = start("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)")
    await process.exited.wait()
    assert process.exit is not None
    assert (process.exit.code, process.exit.signal) == (7, 0)
    assert sorted(written(process)) == ["err", "out"]
    assert process.started_at is not None and process.started_at <= process.exit.finished_at


async def test_nothing_of_the_environment_is_inherited(start: Start) -> None:
    process = start("import os; print(sorted(set(os.environ) - {'LC_CTYPE'}))")
    await process.exited.wait()
    assert written(process) == ["['SECRET']"]
    assert "SECRET" not in (process.directory / "launch.json").read_text()


async def test_a_program_that_cannot_be_started_says_why(start: Start) -> None:
    process = start("", python="/no/such/python")  # type: ignore[call-arg]
    await process.exited.wait()
    assert process.exit is not None
    assert process.exit.code == 128
    assert "/no/such/python" in process.exit.error


async def test_terminate_reaches_the_program_even_right_after_its_start(start: Start) -> None:
    process = start("import time; time.sleep(60)")
    process.terminate()
    await process.exited.wait()
    assert process.exit is not None
    assert (process.exit.code, process.exit.signal) == (143, signal.SIGTERM)


async def test_kill_ends_the_programs_children_too(start: Start) -> None:
    process = start(
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    lines = await eventually(lambda: process.log.exists() and written(process))
    assert lines
    process.kill()
    await process.exited.wait()
    assert process.exit is not None and process.exit.code == 137
    await eventually(lambda: not alive(int(lines[0])))


async def test_a_later_agent_adopts_a_running_process_and_learns_of_its_end(start: Start) -> None:
    first = start("import time, sys\ntime.sleep(60)")
    await eventually(lambda: first.pid)
    later = Process(first.directory, lambda: None)
    later.adopt()
    assert later.exit is None
    assert (later.pid, later.started_at) == (first.pid, first.started_at)
    assert later.note == {"crashes": 2}
    later.terminate()
    await later.exited.wait()
    assert later.exit is not None and later.exit.code == 143
    await first.exited.wait()


async def test_a_later_agent_learns_the_exit_code_of_what_ended_meanwhile(start: Start) -> None:
    first = start("raise SystemExit(5)")
    await first.exited.wait()
    later = Process(first.directory, lambda: None)
    later.adopt()
    assert later.exit == first.exit


async def test_a_process_whose_shim_was_killed_is_ended_and_its_end_unknown(start: Start) -> None:
    process = start("import time; time.sleep(60)")
    pid = await eventually(lambda: process.pid)
    assert pid is not None and process._shim is not None
    os.kill(process._shim, signal.SIGKILL)
    await process.exited.wait()
    assert process.exit is not None
    assert process.exit.unknown and process.exit.code == 137
    await eventually(lambda: not alive(pid))


async def test_logs_are_rotated_at_their_size(start: Start) -> None:
    process = start("for i in range(1000): print(i, 'x' * 50)", 20_000)  # type: ignore[call-arg]
    await process.exited.wait()
    assert [path.name for path in logs.files(process.log)] == ["log.1", "log"]
    assert sum(path.stat().st_size for path in logs.files(process.log)) < 120_000
    assert written(process)[-1].startswith("999 ")
