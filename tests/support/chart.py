"""The chart as helm renders it, for tests that look at the objects."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).resolve().parents[2] / "charts/pippin"
NAMESPACE = "pippin-system"
#: Values files that stand beside values.yaml; the empty name is values.yaml alone.
PRESETS = ("", "embedded", "kind", "openshift")
#: Everything that is off by default, switched on.
EVERYTHING = ("monitoring.enabled=true", "ingress.enabled=true", "ingress.host=llm.example.com")

Object = Mapping[str, Any]


class HelmRefused(Exception):
    """helm said no; the message is what it printed."""


@dataclass(frozen=True)
class Chart:
    """The chart and the helm that renders it."""

    helm: Path
    namespace: str = NAMESPACE

    def run(self, *args: str) -> str:
        """Raises HelmRefused with helm's words."""
        return _run(str(self.helm), *args)

    def template(self, *sets: str, preset: str = "", release: str = "pippin") -> str:
        """What `helm template` prints."""
        args = [item for text in sets for item in ("--set", text)]
        return self.run(
            "template", release, str(CHART), "-n", self.namespace, *preset_args(preset), *args
        )

    def objects(self, *sets: str, preset: str = "", release: str = "pippin") -> list[Object]:
        rendered = yaml.safe_load_all(self.template(*sets, preset=preset, release=release))
        return [item for item in rendered if item]

    def one(self, kind: str, name: str, *sets: str, preset: str = "") -> Any:
        """The one object of that kind and name."""
        (found,) = select(self.objects(*sets, preset=preset), kind, name)
        return found


@cache  # the chart does not change while its tests run, and a rendering takes 0.3 s
def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise HelmRefused(done.stdout + done.stderr)
    return done.stdout


def preset_args(preset: str) -> list[str]:
    return ["-f", str(CHART / f"values-{preset}.yaml")] if preset else []


def select(objects: Iterable[Object], kind: str, name: str | None = None) -> list[Object]:
    return [
        item
        for item in objects
        if item["kind"] == kind and name in (None, item["metadata"]["name"])
    ]


@pytest.fixture(scope="session")
def chart(kubernetes_programs: Path) -> Chart:
    """The chart with the pinned helm."""
    return Chart(kubernetes_programs / "helm")
