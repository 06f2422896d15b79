"""The models that lie in a directory: what they are called, what they do, and whether they are
whole. Reads no weights.

A model is a directory with a config.json (a model_index.json, where several networks make up one),
or with a `pippin.json` of ours, at most three below the top (`org/model`), or a repository in the
layout of Hugging Face's cache.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, ValidationError

from pippin_contract.serverconfig import EchoConfig, EngineName, Frozen, ServerConfig, Task

from ..engines import registry, weights
from . import inspection, integrity

#: What a person may lay beside the weights.
OURS = "pippin.json"
_DEPTH = 3
_TEMPLATES = ("chat_template.jinja", "chat_template.json")


class ModelFile(Frozen):
    """`pippin.json`. What it does not say is read off the model's own files, or is the server's."""

    model_config = ConfigDict(extra="forbid")

    engine: EngineName | None = None
    engine_args: tuple[str, ...] | None = None
    task: Task | None = None
    context_length: int | None = Field(default=None, ge=1)
    aliases: tuple[str, ...] = ()
    family: str = ""
    tags: tuple[str, ...] = ()
    description: str = ""
    echo: EchoConfig | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """`bytes` of weights on the disk; `problems`: what is wrong with its files, or keeps this
    server from serving it."""

    config: ServerConfig
    bytes: int
    problems: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.config.served_name

    def payload(self) -> dict[str, object]:
        """Of `pippin-server discover --json`."""
        config = self.config
        return {
            "name": self.name,
            "aliases": list(config.aliases),
            "path": config.model.path,
            "engine": config.engine,
            "task": config.model.task,
            "context_length": config.model.context_length,
            "bytes": self.bytes,
            "complete": not self.problems,
            "problems": list(self.problems),
        }


def table(found: Sequence[Found]) -> str:
    """For people; a line for each problem below."""
    if not found:
        return "no models: a model is a directory with a config.json, or with a pippin.json"
    rows = [("NAME", "ENGINE", "TASK", "SIZE", "COMPLETE"), *map(_row, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    lines += [f"{one.name}: {problem}" for one in found for problem in one.problems]
    return "\n".join(lines)


def _row(found: Found) -> tuple[str, ...]:
    config = found.config
    size = f"{found.bytes / 2**30:.1f} GiB" if found.bytes >= 2**30 else _mebibytes(found.bytes)
    whole = "no" if found.problems else "yes"
    return found.name, config.engine, config.model.task, size, whole


def _mebibytes(count: int) -> str:
    return f"{-(-count // 2**20)} MiB" if count else "-"


def discover(root: Path, server: ServerConfig) -> list[Found]:
    """By name. `server`: what holds for all models that say nothing else. Raises OSError when the
    directory cannot be read."""
    os.scandir(root).close()
    found = [look(name, path, server) for name, path in _models(root)]
    return _unique(sorted(found, key=lambda one: one.name))


def _models(root: Path) -> Iterator[tuple[str, Path]]:
    for path in _below(root, _DEPTH):
        if path.name.startswith("models--"):
            snapshot = _snapshot(path)
            if snapshot is not None:
                yield path.name.removeprefix("models--").replace("--", "/"), snapshot
        else:
            yield path.relative_to(root).as_posix(), path


def _below(directory: Path, depth: int) -> Iterator[Path]:
    """Directories of models; what lies below one is its own."""
    try:
        inside = sorted(path for path in directory.iterdir() if path.is_dir())
    except OSError:
        return  # not ours to read
    for path in inside:
        if path.name.startswith("."):
            continue
        if path.name.startswith("models--") or _is_model(path):
            yield path
        elif depth > 1:
            yield from _below(path, depth - 1)


def _is_model(path: Path) -> bool:
    return any((path / name).is_file() for name in (OURS, integrity.CONFIG, weights.PIPELINE))


def _snapshot(repository: Path) -> Path | None:
    """The version that Hugging Face's tools take: `main`, or the only one that is here."""
    snapshots = repository / "snapshots"
    try:
        told = snapshots / (repository / "refs" / "main").read_text().strip()
        if told.is_dir():
            return told
    except OSError:
        pass
    here = [path for path in snapshots.glob("*") if path.is_dir()]
    return here[0] if len(here) == 1 else None


def look(name: str, path: Path, server: ServerConfig) -> Found:
    """At one directory."""
    problems = []
    try:
        told = _told(path)
    except ValueError as error:
        told, problems = ModelFile(), [str(error)]
    config = _config(name, path, told, server)
    problems += registry.problems(config) or alone(config)
    if registry.needs_weights(config):
        problems += inspection.problems(path, config.model.task)
    return Found(config, weights.size(path), tuple(problems))


def _told(path: Path) -> ModelFile:
    """Raises ValueError in words for the user."""
    try:
        return ModelFile.model_validate_json((path / OURS).read_bytes())
    except FileNotFoundError:
        return ModelFile()
    except OSError as error:
        raise ValueError(f"{OURS}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        item = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, item["loc"]))
        raise ValueError(f"{OURS}: {where}: {item['msg']}") from error


def _config(name: str, path: Path, told: ModelFile, server: ServerConfig) -> ServerConfig:
    files = _object(path / integrity.CONFIG)
    task = told.task or _task(path, files)
    model = server.model.model_copy(
        update={
            "path": str(path.absolute()),
            "task": task,
            "context_length": told.context_length or _context(server, task, files),
            "family": told.family or str(files.get("model_type") or ""),
            "tags": told.tags,
            "description": told.description,
        }
    )
    engine = told.engine or server.engine
    of_server = server.engine_args if engine == server.engine else ()
    return server.model_copy(
        update={
            "name": name,
            "served_name": name,
            "aliases": told.aliases,
            "engine": engine,
            "engine_args": of_server if told.engine_args is None else told.engine_args,
            "echo": told.echo or server.echo,
            "model": model,
        }
    )


def alone(config: ServerConfig) -> list[str]:
    """Why it cannot be one of several."""
    if config.engine != "vllm":
        return []
    return ["engine: vllm takes the whole device for one model: serve it with --model, or take mlx"]


def _task(path: Path, files: Mapping[str, Any]) -> Task:
    """What a model is made for, as its files tell."""
    if (path / weights.PIPELINE).is_file():
        return "image"
    kinds = files.get("architectures") or [""]
    kind = str(kinds[0]) if isinstance(kinds, list) else ""
    if files.get("model_type") == "whisper":
        return "transcription"
    if (path / "modules.json").is_file() or (kind.endswith("Model") and kind != "Model"):
        return "embedding"
    has_template = bool(_object(path / "tokenizer_config.json").get("chat_template")) or any(
        (path / name).exists() for name in _TEMPLATES
    )
    return "chat" if has_template or not files else "completion"


def _context(server: ServerConfig, task: Task, files: Mapping[str, Any]) -> int | None:
    """What the server is told, for all, is a bound: not every model has as much."""
    wanted = server.model.context_length
    if task in ("embedding", "image"):
        return None  # what they read is short, and told in several files
    text = files.get("text_config")
    own = (text if isinstance(text, dict) else files).get("max_position_embeddings")
    if wanted is None or not isinstance(own, int):
        return wanted
    return min(wanted, own)


def _unique(found: list[Found]) -> list[Found]:
    """Names and aliases belong to the first that has them."""
    taken = {one.name for one in found}
    kept = []
    for one in found:
        clash = [alias for alias in one.config.aliases if alias in taken]
        free = tuple(alias for alias in one.config.aliases if alias not in taken)
        taken.update(free)
        words = [f"{OURS}: the alias {alias} is another model's already" for alias in clash]
        config = one.config.model_copy(update={"aliases": free})
        kept.append(Found(config, one.bytes, (*one.problems, *words)))
    return kept


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
