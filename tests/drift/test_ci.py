"""The workflow calls only what a person can call too, and the lint sees when it is broken."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / ".github/workflows/ci.yaml"
JOBS: dict[str, Any] = yaml.safe_load(FILE.read_text())["jobs"]
CALL = re.compile(
    r'(?:sudo -E env (?:"\w+=\$\w+" )+)?'
    r"(?:make (?P<target>[\w-]+)|(?P<script>hack/[\w/-]+\.sh)(?: (?P<word>\w+))?)"
)


def steps(kind: str) -> Iterator[str]:
    for job in JOBS.values():
        yield from (step[kind] for step in job["steps"] if kind in step)


@pytest.mark.parametrize("line", [line for run in steps("run") for line in run.splitlines()])
def test_every_step_calls_a_script_that_is_there(line: str) -> None:
    call = CALL.fullmatch(line)
    assert call, "only hack/ scripts and make, so that nothing works in the workflow alone"
    if target := call["target"]:
        assert re.search(rf"^{target} *:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return
    script = ROOT / call["script"]
    assert os.access(script, os.X_OK), script
    if word := call["word"]:
        assert f"#   {script.name} {word} " in script.read_text(), f"{script} does not know {word}"


def test_actions_are_official_and_pinned_by_commit() -> None:
    for action in steps("uses"):
        assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action)
    # Beside each commit stands its release, for who updates it.
    assert len(re.findall(r"@[0-9a-f]{40} # v\d+\.\d+\.\d+$", FILE.read_text(), re.MULTILINE)) == (
        len(list(steps("uses")))
    )


def test_no_job_may_write_to_the_repository() -> None:
    assert yaml.safe_load(FILE.read_text())["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in JOBS.values())


def test_the_images_are_of_the_pinned_kind_and_of_the_python_that_is_built_for() -> None:
    pinned = re.search(
        r"sigs\.k8s\.io/kind (v\S+)", (ROOT / "hack/tools/kind/kind/go.mod").read_text()
    )
    assert pinned and f"kind {pinned[1]} list" in FILE.read_text()
    rows = JOBS["kind"]["strategy"]["matrix"]["include"]
    for row in rows:
        version = re.escape(row["kubernetes"])
        assert re.fullmatch(rf"kindest/node:v{version}\.\d+@sha256:[0-9a-f]{{64}}", row["image"])
    assert len({row["kubernetes"] for row in rows}) == 3
    python = re.search(r"^PYTHON=(\S+)", (ROOT / "hack/images/build.sh").read_text(), re.MULTILINE)
    assert python and JOBS["kind"]["env"]["PIPPIN_BASE"].startswith(f"python:{python[1]}-slim-")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("    runs-on: ubuntu-24.04\n", ""),
        ("      - run: hack/test.sh embedded", "      - runs: hack/test.sh embedded"),
        ("permissions: {contents: read}", "permissions: {content: read}"),
        ("    timeout-minutes: 120\n", ""),
    ],
    ids=["no machine", "a misspelt step", "a misspelt permission", "no time limit"],
)
def test_the_lint_refuses_a_broken_workflow(tmp_path: Path, before: str, after: str) -> None:
    lint = (ROOT / "hack/lint.sh").read_text()
    command = re.search(r"^for schema in .*?^done$", lint, re.MULTILINE | re.DOTALL)
    assert command and "check-jsonschema" in command[0]
    copy = tmp_path / ".github/workflows/ci.yaml"
    copy.parent.mkdir(parents=True)

    def judged(text: str) -> int:
        copy.write_text(text)
        path = f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command[0]],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            timeout=30,
            check=False,
        ).returncode

    whole = FILE.read_text()
    assert judged(whole) == 0
    assert before in whole
    assert judged(whole.replace(before, after, 1)) == 1
