"""The CRDs are what the types say, in both places; the samples are what the types take."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pippin_contract import wire
from pippin_operator.api.apikey import APIKey
from pippin_operator.api.modeldeployment import ModelDeployment

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = sorted((ROOT / "crds/samples").glob("*.yaml"))
KINDS = {"ModelDeployment": ModelDeployment, "APIKey": APIKey}


def test_generated_files_are_current():
    done = subprocess.run(
        [sys.executable, str(ROOT / "hack/generate-crds.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_has_no_field_that_the_types_lack(path: Path):
    body = yaml.safe_load(path.read_text())
    assert body["apiVersion"] == wire.API_VERSION
    KINDS[body["kind"]].model_validate({"spec": body["spec"]}, extra="forbid")


def test_there_is_a_sample_for_every_way_to_serve():
    names = {path.stem for path in SAMPLES}
    assert {"apple", "nvidia", "cpu", "echo", "external", "apikey"} <= names


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_begins_by_saying_what_it_is(path: Path):
    assert path.read_text().startswith("# ")
