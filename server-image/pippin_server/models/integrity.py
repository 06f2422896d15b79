"""Is a directory of weights whole? Looked at before anything is loaded, without reading weights.

A truncated download otherwise shows as a crash deep in an engine, or as nonsense in answers.
Every problem names the file.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
#: safetensors itself refuses longer headers.
_MAX_HEADER = 100_000_000
_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2,
    "U16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tiktoken.model", "vocab.json")
_TEMPLATES = ("chat_template.jinja", "chat_template.json")


class Damaged(Exception):
    """A file that is missing, cut off or not what it should be."""


def problems(model: Path, *, chat: bool) -> list[str]:
    """What is wrong with the model, file by file; empty when it is whole."""
    return list(_problems(model, chat))


def _problems(model: Path, chat: bool) -> Iterator[str]:
    try:
        config = read_object(model / CONFIG)
        if not isinstance(config.get("model_type"), str):
            yield f"{CONFIG}: model_type is missing"
    except Damaged as error:
        yield str(error)
    tensors: dict[str, str] = {}
    files = sorted(model.glob("*.safetensors"))
    if not files:
        yield "*.safetensors: no weights are here"
    for path in files:
        try:
            tensors.update(dict.fromkeys(tensor_names(path), path.name))
        except Damaged as error:
            yield str(error)
    if (model / INDEX).exists():
        yield from against_index(model / INDEX, {path.name for path in files}, tensors)
    yield from _tokenizer(model, chat)


def tensor_names(path: Path) -> list[str]:
    """The tensors of a safetensors file whose header fits its length. Raises Damaged."""
    size = path.stat().st_size
    with _Readable(path) as fd:
        head = os.read(fd, 8)
        length = int.from_bytes(head, "little")
        if len(head) < 8 or length > min(_MAX_HEADER, size - 8):
            raise Damaged(f"{path.name}: cut off in its header ({size} bytes)")
        raw = os.read(fd, length)
    try:
        header = json.loads(raw)
    except ValueError as error:
        raise Damaged(f"{path.name}: its header is not JSON") from error
    if not isinstance(header, dict):
        raise Damaged(f"{path.name}: its header is no object")
    header.pop("__metadata__", None)
    end = max((_end(path, name, tensor) for name, tensor in header.items()), default=0)
    if 8 + length + end != size:
        raise Damaged(
            f"{path.name}: its header describes {8 + length + end} bytes, the file has {size}"
        )
    return list(header)


def _end(path: Path, name: str, tensor: Any) -> int:
    try:
        begin, end = tensor["data_offsets"]
        expected = math.prod(tensor["shape"]) * _BYTES.get(tensor["dtype"], 0)
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"{path.name}: tensor {name} is not described") from error
    if expected and end - begin != expected:
        raise Damaged(f"{path.name}: tensor {name} has {end - begin} bytes instead of {expected}")
    return int(end)


def against_index(path: Path, files: set[str], tensors: dict[str, str]) -> Iterator[str]:
    """`files`: names of those that are here; `tensors`: those that are in them."""
    try:
        wanted = read_object(path).get("weight_map")
    except Damaged as error:
        yield str(error)
        return
    if not isinstance(wanted, dict):
        yield f"{path.name}: weight_map is missing"
        return
    for shard in sorted(set(map(str, wanted.values())) - files):
        yield f"{shard}: named by {path.name}, but not here"
    for name, shard in wanted.items():
        if shard in files and tensors and name not in tensors:
            yield f"{shard}: tensor {name} is missing"
            return


def _tokenizer(model: Path, chat: bool) -> Iterator[str]:
    present = [name for name in _TOKENIZERS if (model / name).exists()]
    if not present:
        yield f"{_TOKENIZERS[0]}: no tokenizer is here"
    for name in present:
        if name.endswith(".json"):
            try:
                read_object(model / name)
            except Damaged as error:
                yield str(error)
    settings: dict[str, Any] = {}
    if (model / "tokenizer_config.json").exists():
        try:
            settings = read_object(model / "tokenizer_config.json")
        except Damaged as error:
            yield str(error)
    has_template = bool(settings.get("chat_template")) or any(
        (model / name).exists() for name in _TEMPLATES
    )
    if chat and not has_template:
        yield (
            "tokenizer_config.json: no chat template; set the task to completion or add "
            f"{_TEMPLATES[0]}"
        )


def read_object(path: Path) -> dict[str, Any]:
    """Raises Damaged."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise Damaged(f"{path.name}: not here") from error
    except OSError as error:
        raise Damaged(f"{path.name}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise Damaged(f"{path.name}: not valid JSON") from error
    if not isinstance(found, dict):
        raise Damaged(f"{path.name}: no JSON object")
    return found


class _Readable:
    """A file descriptor whose errors name the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> int:
        try:
            self.fd = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise Damaged(f"{self.path.name}: cannot be read ({error.strerror})") from error
        return self.fd

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)
