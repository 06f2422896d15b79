"""`kubectl pippin` as it is typed: a real kubectl finds the plugin; an API server, an operator."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from pippin_contract import apikeys
from support.kubectl_pippin import Typed
from support.manifests import key, model
from support.operator_process import Cluster, Operator

pytestmark = pytest.mark.usefixtures("operator")


@pytest.fixture
def typed(cluster: Cluster, operator: Operator, namespace: str) -> Typed:
    return Typed(cluster, namespace)


def test_a_key_is_made_shown_and_ended(typed: Typed) -> None:
    limits = ("--rpm=60", "--tpm=1000", "--tokens-per-day=5000", "--concurrency=4")
    who = ("--owner=search@example.com", "--description=of the search")
    said = typed("create", "app", "--model=qwen-*", "--model=small", *limits, *who, "--expires=30d")
    status = typed.cluster.status("apikeys", typed.namespace, "app")
    assert f"{typed.namespace}/app is good" in said and status["keyId"] in said
    assert typed.held() not in said, "not where a screen or a log keeps it"
    spec = typed.cluster.get("apikeys", typed.namespace, "app")["spec"]
    assert spec["models"] == ["qwen-*", "small"]
    assert spec["limits"] == {"rpm": 60, "tpm": 1000, "tokensPerDay": 5000, "concurrency": 4}
    left = datetime.fromisoformat(spec["expiresAt"]) - datetime.now(UTC)
    assert timedelta(days=29, hours=23) < left <= timedelta(days=30)
    shown = typed("show", "app")
    for fact in ("Active", status["keyId"], "search@example.com", "qwen-*, small", "rpm 60"):
        assert fact in shown
    assert typed.held() not in shown
    assert typed("show", "app", "--reveal") == typed.held() + "\n"
    told = dict(
        line.removeprefix("export ").split("=", 1)
        for line in typed("show", "app", "--env").splitlines()
    )
    assert told == {"OPENAI_API_KEY": typed.held(), "OPENAI_BASE_URL": "http://gateway.example/v1"}
    assert "--yes" in typed.refused("revoke", "app")
    assert "ended" in typed("revoke", "app", "--yes")
    assert "not found" in typed.refused("show", "app")


def test_the_line_that_it_says_to_type_shows_the_key(typed: Typed) -> None:
    said = typed("create", "app", "--model=*")
    line = said.partition("to see it:")[2].split()
    shown = subprocess.run(
        line, env={**os.environ, "PATH": typed.path}, capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == typed.held()


def test_a_key_is_replaced_and_the_old_one_is_good_for_a_while(typed: Typed) -> None:
    typed("create", "app", "--model=*", "--rotate-every=720h", "--overlap=2h")
    before = apikeys.key_id(typed.held())
    said = typed("rotate", "app")
    after = apikeys.key_id(typed.held())
    assert after != before
    assert f"id {after} now" in said and f"the one before, {before}, is good until" in said
    assert f"{before} until" in typed("show", "app")


def test_a_key_is_paused_and_resumed(typed: Typed) -> None:
    typed("create", "app", "--model=*")
    assert "Disabled" in typed("pause", "app")
    assert typed.cluster.get("apikeys", typed.namespace, "app")["spec"]["enabled"] is False
    assert "Active" in typed("resume", "app")


def test_what_it_would_create_is_shown_and_not_created(typed: Typed) -> None:
    shown = typed("create", "app", "--model=qwen-*", "--rpm=5", "--dry-run")
    assert "kind: APIKey" in shown and "rpm: 5" in shown
    assert typed.cluster.list("apikeys", typed.namespace) == []


def test_what_is_wrong_is_said_in_one_line(typed: Typed) -> None:
    assert "say 30d, 12h" in typed.refused("create", "app", "--model=*", "--expires=soon")
    assert "over already" in typed.refused("create", "app", "--model=*", "--expires=2020-01-01")
    assert "--model" in typed.refused("create", "app")
    assert "greater than or equal to 1" in typed.refused("create", "app", "--model=*", "--rpm=-1")
    typed("create", "app", "--model=*")
    assert "already exists" in typed.refused("create", "app", "--model=*")


def test_a_key_of_ones_own_is_not_rotated_here(typed: Typed) -> None:
    mine = key("mine", typed.namespace, existingSecretRef={"name": "brought", "key": "k"})
    typed.cluster.create("apikeys", mine)
    assert "Secret brought" in typed.refused("rotate", "mine")
    assert "SecretNotFound" in typed.refused("show", "mine", "--reveal")


def test_manifests_are_checked_together_and_nothing_is_changed(
    typed: Typed, tmp_path: Path
) -> None:
    mine = [
        model("qwen", typed.namespace, fallbacks=["spare"]),
        key("app", typed.namespace, models=["qwen", "lama"]),
    ]
    (tmp_path / "below").mkdir()
    for number, one in enumerate(mine):
        (tmp_path / "below" / f"{number}.yaml").write_text(yaml.safe_dump(one))
    done = typed.check(tmp_path)
    assert done.returncode == 1 and "2 objects, 1 errors, 1 warnings" in done.stderr
    assert "fallback spare: there is no such ModelDeployment" in done.stdout
    assert "lama matches no model" in done.stdout
    assert not typed.cluster.list("modeldeployments", typed.namespace)

    spare = model("spare", typed.namespace)
    typed.cluster.create("modeldeployments", spare)
    done = typed.check(tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    wrong = model("broken", typed.namespace, replicas=-1)
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump(wrong))
    done = typed.check(tmp_path)
    assert done.returncode == 1 and "spec.replicas" in done.stdout
