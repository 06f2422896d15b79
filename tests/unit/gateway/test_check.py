"""`pippin-gateway check`: manifests judged together, where there is no cluster."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import yaml

from pippin_contract.wire import API_VERSION
from pippin_gateway.__main__ import main
from pippin_gateway.check import check

SAMPLES = Path(__file__).parents[3] / "crds" / "samples"


def manifest(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def model(name: str, **spec: Any) -> dict[str, Any]:
    return manifest("ModelDeployment", name, **spec)


def key(*models: str, **spec: Any) -> dict[str, Any]:
    return manifest("APIKey", "app", models=list(models), **spec)


class Checked:
    """What is told of some manifests."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self._capsys = capsys

    def write(self, name: str, *documents: Any) -> None:
        file = self.directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump_all(documents))

    def told(self, *documents: Any) -> tuple[int, str]:
        """The exit code, and all that is printed."""
        if documents:
            self.write("all.yaml", *documents)
        code = check([str(self.directory)], "default")
        said = self._capsys.readouterr()
        return code, said.out + said.err


@pytest.fixture
def checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Checked:
    return Checked(tmp_path, capsys)


def test_files_of_a_directory_are_judged_together(checked: Checked) -> None:
    checked.write("models/one.yaml", model("one", fallbacks=["two"]))
    checked.write("models/more.yml", {"kind": "List", "items": [model("two"), None]}, None)
    checked.write("keys.json", key("one", "t*"))
    checked.write("..data/keys.json", key("one"))
    checked.write("notes.txt", "anything")
    assert checked.told() == (0, "3 objects, 0 errors, 0 warnings\n")


def test_what_cannot_work_is_an_error_and_the_exit_code(checked: Checked) -> None:
    code, said = checked.told(model("one", fallbacks=["gone"]), key("one", "lama-*"))
    assert code == 1
    assert said.splitlines() == [
        "error: ModelDeployment default/one: fallback gone: there is no such ModelDeployment",
        "warning: APIKey default/app: lama-* matches no model",
        "error: 2 objects, 1 errors, 1 warnings",
    ]


def test_a_circle_is_found_over_files(checked: Checked) -> None:
    checked.write("one.yaml", model("one", fallbacks=["two"]))
    code, said = checked.told(model("two", fallbacks=["one"]))
    assert code == 1 and "one -> two -> one" in said


def test_secrets_are_looked_for_among_the_files(checked: Checked) -> None:
    wants = model("x", model={"credentialsSecretRef": {"name": "hub", "key": "token"}})
    code, said = checked.told(wants)
    assert code == 0 and "Secret hub is not among these files" in said and "key token" in said
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hub"}}
    assert checked.told(wants, secret | {"stringData": {"token": "t"}})[0] == 0
    code, said = checked.told(wants, secret | {"data": {"other": "dA=="}})
    assert code == 1 and "the Secret hub has no key token" in said


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (model("x", fallbacks="y"), "spec.fallbacks: must be a valid list"),
        (model("x", model="y"), "spec.model: must be an object"),
        (model("x", limits={"rpm": 0}), "spec.limits.rpm: must be greater than or equal to 1"),
        (model("x", limits={"tpm": "5"}), "spec.limits.tpm: must be a valid integer"),
        (model("x", model={"credentialsSecretRef": {}}), "credentialsSecretRef.name: is missing"),
        (model("x") | {"spec": None}, "spec: must be an object"),
        (key(5), "spec.models.0: must be a valid string"),
        (key("*", expiresAt="soon"), "spec.expiresAt"),
        (key("*", expiresAt="2027-01-31T12:00:00"), "spec.expiresAt"),
        ({"kind": "ModelDeployment"}, "each needs kind and metadata.name"),
        (["x"], "each needs kind and metadata.name"),
    ],
)
def test_what_makes_no_sense_is_named(checked: Checked, wrong: Any, field: str) -> None:
    code, said = checked.told(wrong, model("other"))
    assert code == 1 and field in said and "Traceback" not in said


def test_an_object_cannot_be_there_twice(checked: Checked) -> None:
    checked.write("again.yaml", model("x"))
    code, said = checked.told(model("x"))
    assert code == 1 and "ModelDeployment default/x: it is there twice" in said


def test_kinds_of_others_are_none_of_its_business(checked: Checked) -> None:
    theirs = {**model("x", fallbacks=5), "apiVersion": "other.dev/v1"}
    assert checked.told(theirs, {**theirs, "kind": "Service"})[0] == 0


def test_times_are_read_as_the_api_server_reads_them(checked: Checked) -> None:
    text = yaml.safe_dump(key("*"))
    (checked.directory / "key.yaml").write_text(text + "  expiresAt: 2020-01-01T00:00:00Z\n")
    code, said = checked.told(model("x"))
    assert code == 0 and "it ended at 2020-01-01T00:00:00Z" in said


def test_what_cannot_be_read_is_told_without_its_text(checked: Checked) -> None:
    (checked.directory / "secret.yaml").write_text("data: {token: [s3cr3t\n")
    code, said = checked.told()
    assert code == 1 and "secret.yaml: is no YAML, see line 2" in said and "s3cr3t" not in said
    assert check([str(checked.directory / "none")], "default") == 1


def test_standard_input_is_a_file_too(
    checked: Checked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(yaml.safe_dump(model("x", fallbacks=["y"]))))
    assert check(["-"], "team-a") == 1
    assert "ModelDeployment team-a/x" in capsys.readouterr().out


@pytest.mark.parametrize(("place", "code"), [(SAMPLES, 0), (SAMPLES / "none.yaml", 1), ("-x", 2)])
def test_the_program_ends_as_the_manifests_are(
    place: Path | str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["pippin-gateway", "check", str(place)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == code, said.err
    assert code or said.out.endswith("8 objects, 0 errors, 4 warnings\n")
