"""The demo says which step failed, why, where its log is, and what to do."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

import pytest
from cluster.processes import StartFailed
from demo import __main__ as demo
from demo import steps
from demo.story import Failed, Story


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    state = tmp_path / "home" / "demo"
    monkeypatch.setattr(sys, "argv", ["demo", "up", str(state)])
    return state


def test_a_failure_names_step_reason_log_and_remedy(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: Path, story: Story) -> None:
        with story.step(2, "control plane", Path("/logs/here")):
            raise StartFailed("etcd ended while starting")

    monkeypatch.setattr(steps, "run", fails)
    assert demo.main() == 1
    said = capsys.readouterr().out
    assert "error: [2/6] control plane: etcd ended while starting" in said
    assert "/logs/here" in said
    assert "make demo-down" in said


def test_an_interrupt_says_how_to_go_on_and_how_to_end(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: Path, story: Story) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(steps, "run", interrupted)
    assert demo.main() == 130
    assert "`make demo` goes on" in capsys.readouterr().out


def test_only_one_demo_works_in_a_directory(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state.parent.mkdir()
    directory = os.open(state.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        assert demo.main() == 1
    finally:
        os.close(directory)
    assert "another make demo or demo-down is at work" in capsys.readouterr().out


def test_removing_nothing_leaves_nothing(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["demo", "down", str(state)])
    assert demo.main() == 0
    assert not state.parent.exists()


def test_a_directory_that_is_no_demo_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    with pytest.raises(Failed, match="remove it by hand"):
        steps.remove(tmp_path, Story())
    assert (tmp_path / "precious").exists()


@pytest.mark.parametrize(
    ("host", "node"), [("Ada's Mac.local", "ada-s-mac-local"), ("__", "this-machine")]
)
def test_a_nodes_name_is_what_kubernetes_takes(host: str, node: str) -> None:
    assert steps.node_name(host) == node
