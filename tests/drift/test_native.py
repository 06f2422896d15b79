"""What the chart renders for a native node is what that node agrees to run."""

from __future__ import annotations

import pytest

from pippin_contract import __version__
from pippin_node import policy
from pippin_node.settings import default_images
from support.chart import Chart, select

RULES = policy.Rules(images=default_images(), version=__version__)


@pytest.mark.parametrize("preset", ["", "embedded"])
def test_the_agent_accepts_the_charts_pods(chart: Chart, preset: str) -> None:
    deployments = select(chart.objects(preset=preset), "Deployment")
    assert len(deployments) == 2
    for deployment in deployments:
        pod = deployment["spec"]["template"]
        assert policy.check({"metadata": {"name": "x"}, "spec": pod["spec"]}, RULES) is None
