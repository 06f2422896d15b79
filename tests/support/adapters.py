"""LoRA adapters of tiny models with random weights, and the models with them melted in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from safetensors.numpy import load_file, save_file

Tensors = dict[str, Any]
#: What most adapters change.
MODULES = ("q_proj", "v_proj", "down_proj")


@dataclass(frozen=True)
class Lora:
    """`B` is not zero, so that the answers differ."""

    seed: int = 1
    rank: int = 4
    alpha: float = 8.0
    modules: tuple[str, ...] = MODULES

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


def _drawn(model: Path, lora: Lora) -> dict[str, tuple[Any, Any]]:
    """By module: A and B, as PEFT has them."""
    numbers = numpy.random.default_rng(lora.seed)
    found = {}
    for name, (out, width) in _matrices(model):
        module = name.removesuffix(".weight")
        if module.rpartition(".")[2] in lora.modules:
            a = numbers.standard_normal((lora.rank, width), dtype=numpy.float32) * width**-0.5
            b = numbers.standard_normal((out, lora.rank), dtype=numpy.float32) * 0.5
            found[module] = a.astype(numpy.float32), b.astype(numpy.float32)
    return found


def _matrices(model: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """By their header: not every type of number is one of numpy's."""
    with (model / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    header.pop("__metadata__", None)
    for name, told in header.items():
        if len(told["shape"]) == 2:
            yield name, tuple(told["shape"])


def peft(into: Path, model: Path, lora: Lora | None = None, **config: Any) -> Path:
    """As PEFT writes it."""
    lora = lora or Lora()
    tensors: Tensors = {}
    for module, (a, b) in _drawn(model, lora).items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = a
        tensors[f"base_model.model.{module}.lora_B.weight"] = b
    told = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "target_modules": list(lora.modules),
        "bias": "none",
        **config,
    }
    return _written(into, "adapter_model.safetensors", tensors, told)


def mlx(into: Path, model: Path, lora: Lora | None = None, **config: Any) -> Path:
    """As mlx_lm writes it."""
    lora = lora or Lora()
    tensors: Tensors = {}
    for module, (a, b) in _drawn(model, lora).items():
        tensors[f"{module}.lora_a"] = numpy.ascontiguousarray(a.T)
        tensors[f"{module}.lora_b"] = numpy.ascontiguousarray(b.T)
    parameters = {"rank": lora.rank, "scale": lora.scale, "dropout": 0.0}
    told = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": parameters, **config}
    return _written(into, "adapters.safetensors", tensors, told)


def fused(into: Path, model: Path, lora: Lora | None = None) -> Path:
    """The model whose own weights hold what the adapter adds."""
    lora = lora or Lora()
    shutil.copytree(model, into)
    tensors = load_file(model / "model.safetensors")
    for module, (a, b) in _drawn(model, lora).items():
        tensors[f"{module}.weight"] += lora.scale * (b @ a)
    save_file(tensors, into / "model.safetensors", metadata={"format": "pt"})
    return into


def _written(into: Path, name: str, tensors: Tensors, told: dict[str, Any]) -> Path:
    into.mkdir(parents=True)
    save_file(tensors, into / name)
    (into / "adapter_config.json").write_text(json.dumps(told))
    return into
