"""The pages that people read: links that lead somewhere, names that exist, manifests that work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docs
import pytest
import yaml
from cluster.controlplane import ControlPlane

from support.apiserver import new_namespace
from support.kubectl import Kubectl, KubectlFailed, kinds_established

ROOT = docs.ROOT
PAGES = sorted(
    path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("charts/**/*.md")]
)
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
FILES = (".json", ".yaml")
CODE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", CODE.sub("", page.read_text())):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target} does not exist"
        if anchor:
            assert anchor in anchors(file), f"{target}: there is no such heading"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_reached_from_the_readme() -> None:
    seen, to_do = set(), [ROOT / "README.md"]
    while to_do:
        page = to_do.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        for target in re.findall(r"\]\(([^)\s#]+)", page.read_text()):
            found = (page.parent / target).resolve()
            to_do.append(found / "README.md" if found.is_dir() else found)
    assert {str(p.relative_to(ROOT)) for p in set(PAGES) - seen} == {"CHANGELOG.md"} - {
        str(p.relative_to(ROOT)) for p in seen
    }


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+) *:", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"(?:^|`)make ([a-z][a-z0-9-]*)", page.read_text(), re.MULTILINE))
        assert named <= targets, page


@pytest.mark.parametrize("program", docs.PROGRAMS)
def test_every_setting_says_what_it_means(program: str) -> None:
    fields = docs.PROGRAMS[program].model_fields
    assert [name for name, field in fields.items() if not field.description] == []


def test_every_metric_that_is_named_exists() -> None:
    known = set(re.findall(r"`(pippin_\w+)`", docs.metrics_page()))
    for page in PAGES:
        named = set(re.findall(r"\bpippin_(?:gateway|server|operator)_\w+", page.read_text()))
        packages = {"pippin_operator", "pippin_gateway", "pippin_server"}
        assert named - packages <= known, page


def test_every_chart_value_that_is_named_exists() -> None:
    values = [v.path for v in docs.chart_values((docs.CHART / "values.yaml").read_text())]
    sections = {path.partition(".")[0] for path in values}
    for page in PAGES:
        for path in re.findall(r"`(\w+(?:\.\w+)+)(?:=\w+)?`", page.read_text()):
            # `engine.…`, `limits.…` are fields of objects; some share a name with a section.
            if path.partition(".")[0] in sections - {"monitoring"}:
                assert path in values or path.endswith(FILES), f"{page}: {path}"


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    for page, name in zip(PAGES, NAMES, strict=True):
        for language, text in CODE.findall(page.read_text()):
            if language == "yaml" and "apiVersion:" in text:
                for item in yaml.safe_load_all(text):
                    yield f"{name}: {item['kind']} {item['metadata']['name']}", item


@pytest.fixture(scope="module")
def kubectl(control_plane: ControlPlane, kubernetes_programs: Path) -> Kubectl:
    """With our kinds installed."""
    kubectl = Kubectl(kubernetes_programs / "kubectl", control_plane.kubeconfig)
    kubectl("apply", "--server-side", "-f", str(ROOT / "crds/modeldeployments.yaml"))
    kubectl("apply", "--server-side", "-f", str(ROOT / "crds/apikeys.yaml"))
    kinds_established(kubectl)
    return kubectl.within(new_namespace(control_plane))


@pytest.mark.parametrize("item", [pytest.param(m, id=name) for name, m in manifests()])
def test_a_manifest_that_is_shown_is_accepted(kubectl: Kubectl, item: dict[str, Any]) -> None:
    assert "serverside-applied" in strictly(kubectl, item)


def test_a_manifest_with_a_misspelt_field_is_not(kubectl: Kubectl) -> None:
    _, item = next(manifests())
    with pytest.raises(KubectlFailed, match="replica"):
        strictly(kubectl, {**item, "spec": {**item["spec"], "replica": 1}})


def strictly(kubectl: Kubectl, item: dict[str, Any]) -> str:
    metadata = {**item["metadata"], "namespace": kubectl.namespace}
    return kubectl(
        *("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"),
        stdin=yaml.safe_dump({**item, "metadata": metadata}),
    )
