"""`pippin-gateway check`: would these manifests work together? Asks no cluster.

What the API server would say of each by itself is not said here, but for what is looked at.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import yaml
from pydantic import AfterValidator, BaseModel, Field, ValidationError

from pippin_contract.judge import (
    KEY,
    MODEL,
    SECRET,
    Problem,
    Raw,
    Ref,
    World,
    called,
    problems,
    ref_of,
    summary,
    wanted_secrets,
)
from pippin_contract.wire import GROUP

_SUFFIXES = frozenset({".yaml", ".yml", ".json"})
_Count = Annotated[int | None, Field(ge=1)]
_Texts = list[str] | None


def _is_moment(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("must say its time zone: 2027-01-31T12:00:00Z")
    return text


class _Part(BaseModel, strict=True):
    """Of a spec, what is looked at."""


class _Secret(_Part):
    name: str
    key: str | None = None


class _Limits(_Part):
    rpm: _Count = None
    tpm: _Count = None
    concurrency: _Count = None
    tokensPerDay: _Count = None


class _Named(_Part):
    name: str | None = None
    aliases: _Texts = None
    task: str | None = None
    credentialsSecretRef: _Secret | None = None


class _External(_Part):
    provider: str | None = None
    apiKeySecretRef: _Secret | None = None


class _Engine(_Part):
    external: _External | None = None


class _Auth(_Part):
    namespaces: _Texts = None


class _Model(_Part):
    model: _Named | None = None
    engine: _Engine | None = None
    auth: _Auth | None = None
    fallbacks: _Texts = None
    limits: _Limits | None = None


class _Key(_Part):
    models: _Texts = None
    limits: _Limits | None = None
    existingSecretRef: _Secret | None = None
    expiresAt: Annotated[str, AfterValidator(_is_moment)] | None = None


#: For what is said in words of Python.
_WORDS = {"model_type": "must be an object", "missing": "is missing"}
_SPECS: dict[str, type[_Part]] = {MODEL: _Model, KEY: _Key}


class _Loader(yaml.SafeLoader):
    """As the API server reads it: times are texts."""

    yaml_implicit_resolvers = {
        first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _Read(NamedTuple):
    """All objects that were found, and what is wrong with single ones."""

    objects: dict[tuple[str, Ref], Raw]
    found: list[Problem]


def check(paths: Iterable[str], namespace: str) -> int:
    """Print what is wrong; 1 when something cannot work. Objects that name no namespace are of that
    one."""
    objects, found = _read(paths, namespace)
    ours = [one for (kind, _), one in objects.items() if kind in _SPECS and _is_sound(one, found)]
    secrets: dict[Ref, frozenset[str] | None] = {
        ref: frozenset({*(one.get("data") or ()), *(one.get("stringData") or ())})
        for (kind, ref), one in objects.items()
        if kind == SECRET
    }
    found += problems(ours, World(ours, secrets), datetime.now(UTC))
    found += _elsewhere(ours, secrets)
    for problem in found:
        print(problem)
    said = summary(len(objects), found)
    if any(problem.fatal for problem in found):
        print(f"error: {said}", file=sys.stderr)
        return 1
    print(said)
    return 0


def _read(paths: Iterable[str], namespace: str) -> _Read:
    read = _Read({}, [])
    for place in paths:
        files = _files(Path(place)) if place != "-" else [None]
        for file in files:
            _take(file, namespace, read)
    return read


def _files(path: Path) -> Sequence[Path]:
    """Hidden directories are left out: a mounted ConfigMap has its files there once more."""
    if not path.is_dir():
        return [path]
    return sorted(
        file
        for file in path.rglob("*")
        if file.suffix in _SUFFIXES
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )


def _take(file: Path | None, namespace: str, read: _Read) -> None:
    """The objects of a file, or of standard input."""
    where = "standard input" if file is None else str(file)
    try:
        text = sys.stdin.read() if file is None else file.read_text()
        documents = list(yaml.load_all(text, _Loader))
    except OSError as error:
        read.found.append(Problem(True, where, f"cannot be read: {error.strerror}"))
        return
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)  # its text may be a Secret's
        line = f", see line {mark.line + 1}" if mark is not None else ""
        read.found.append(Problem(True, where, f"is no YAML{line}"))
        return
    for one in _unfolded(documents):
        try:
            kind, metadata = str(one["kind"]), one["metadata"]
            metadata["namespace"] = str(metadata.get("namespace") or namespace)
            metadata["name"] = str(metadata["name"])
        except (KeyError, TypeError, AttributeError):
            says = "holds what is no object: each needs kind and metadata.name"
            read.found.append(Problem(True, where, says))
            continue
        if kind in _SPECS and not str(one.get("apiVersion")).startswith(f"{GROUP}/"):
            kind = ""  # somebody else's
        name = kind, ref_of(one)
        if kind and name in read.objects:
            says = f"it is there twice, the second time in {where}"
            read.found.append(Problem(True, called(*name), says))
        read.objects[name] = one


def _unfolded(documents: Iterable[Any]) -> Iterator[Any]:
    """Without lists and what is empty."""
    for one in documents:
        if isinstance(one, dict) and isinstance(one.get("items"), list):
            yield from _unfolded(one["items"])
        elif one is not None:
            yield one


def _is_sound(one: Raw, found: list[Problem]) -> bool:
    """Whether what is looked at is what it should be."""
    kind, where = one["kind"], called(one["kind"], ref_of(one))
    try:
        _SPECS[kind].model_validate(one.get("spec"))
    except ValidationError as error:
        for wrong in error.errors():
            field = ".".join(["spec", *map(str, wrong["loc"])])
            says = _WORDS.get(wrong["type"]) or wrong["msg"].replace("Input should be", "must be")
            found.append(Problem(True, where, f"{field}: {says}"))
        return False
    return True


def _elsewhere(ours: Iterable[Raw], secrets: dict[Ref, frozenset[str] | None]) -> Iterator[Problem]:
    """Secrets that are not among the files, as is right: nobody can say here whether they are."""
    for one in ours:
        for ref, key in wanted_secrets(one):
            if ref not in secrets:
                says = f"the Secret {ref[1]} is not among these files: the cluster must have it"
                with_key = f", with the key {key}" if key else ""
                yield Problem(False, called(one["kind"], ref_of(one)), says + with_key)
