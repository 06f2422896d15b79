"""What is wrong with a directory of weights, by what the model is to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pippin_contract.serverconfig import Task

from ..engines import weights
from . import integrity


def marker(task: Task) -> str:
    """The file by which a model's directory is known."""
    return weights.PIPELINE if task == "image" else integrity.CONFIG


def problems(model: Path, task: Task) -> list[str]:
    """File by file; empty when it is whole."""
    if task == "image":
        return list(_of_pipeline(model))
    return integrity.problems(model, chat=task == "chat")


def _of_pipeline(model: Path) -> Iterator[str]:
    try:
        index = integrity.read_object(model / weights.PIPELINE)
    except integrity.Damaged as error:
        yield str(error)
        return
    yield from _object(model, "scheduler/scheduler_config.json")
    for part in weights.PARTS:
        if part not in index and part.endswith("_2"):
            continue
        yield from _part(model, part)
        if part.startswith("text_encoder"):
            yield from _words(model, part.replace("text_encoder", "tokenizer"))


def _part(model: Path, part: str) -> Iterator[str]:
    yield from _object(model, f"{part}/{integrity.CONFIG}")
    files = weights.chosen(model / part)
    if not files:
        yield f"{part}/*.safetensors: no weights are here"
    tensors: dict[str, str] = {}
    for path in files:
        try:
            tensors.update(dict.fromkeys(integrity.tensor_names(path), path.name))
        except integrity.Damaged as error:
            yield f"{part}/{error}"
    for index in (model / part).glob("*.safetensors.index.json"):
        found = {path.name for path in files}
        yield from (f"{part}/{text}" for text in integrity.against_index(index, found, tensors))


def _words(model: Path, part: str) -> Iterator[str]:
    """Merges are no JSON; one file has both."""
    pair = (model / part / "vocab.json", model / part / "merges.txt")
    if all(path.is_file() for path in pair):
        yield from _object(model, f"{part}/vocab.json")
    elif (model / part / "tokenizer.json").is_file():
        yield from _object(model, f"{part}/tokenizer.json")
    else:
        yield f"{part}/vocab.json: no tokenizer is here"


def _object(model: Path, name: str) -> Iterator[str]:
    try:
        integrity.read_object(model / name)
    except integrity.Damaged as error:
        yield f"{name.rpartition('/')[0]}/{error}"
