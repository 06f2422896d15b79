"""Fixtures that more than one layer of tests uses, and how a run ends."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

pytest_plugins = ["support.apiserver"]

_LONGEST = ("serving", "apiserver", "e2e", "gateway", "node")


class ByLayer(LoadScopeScheduling):  # type: ignore[misc]
    """With several workers a layer stays on one, whose tests share clusters and servers.

    With vLLM, where a server takes 40 seconds to start, those that share one stay together.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.partition("::")[0])
        if file.parts[1] != "vllm":
            return file.parts[1]
        return nodeid if file.name == "test_running.py" else file.name


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByLayer:
    return ByLayer(config, log)


def _layer(nodeid: str) -> str:
    return Path(nodeid).parts[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest layers first, so that none of them is left when all others are done."""
    order = {layer: number for number, layer in enumerate(_LONGEST)}
    items.sort(key=lambda item: order.get(_layer(item.nodeid), len(order)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how long each layer took."""
    seconds: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[_layer(report.nodeid)] += round(report.duration)
    told = ", ".join(f"{layer} {total} s" for layer, total in sorted(seconds.items()))
    terminalreporter.write_line(f"time by layer: {told}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In continuous integration a skipped test is a failed run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") == "true" and reporter and reporter.stats.get("skipped"):
        reporter.write_line("\nCI=true: a test was skipped, so the run fails", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
