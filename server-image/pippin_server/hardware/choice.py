"""Which engine this machine is for, of those that are installed, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from .facts import Accelerator, Hardware

#: vLLM computes on NVIDIA's GPUs from here on.
_LEAST_CAPABILITY = (7, 0)


@dataclass(frozen=True, slots=True)
class Choice:
    """`hints`: what of the machine stays unused, and what would use it."""

    engine: Literal["mlx", "vllm", "echo"]
    device: str
    reason: str
    hints: tuple[str, ...] = ()


def choose(found: Hardware, versions: Mapping[str, str]) -> Choice:
    """`versions`: of the engines that are installed. The echo engine always is."""
    vllm = versions.get("vllm")
    hints = tuple(_hints(found, versions))
    for gpu in found.of("metal"):
        if "mlx" in versions:
            return Choice("mlx", "metal", f"MLX computes on the GPU of {gpu.name}", hints)
    for gpu in [*found.of("cuda"), *found.of("rocm")]:
        if vllm is not None and _suits(gpu) and not _for_cpu(vllm):
            return Choice("vllm", gpu.kind, f"vLLM computes on {gpu.name}", hints)
    if "mlx" in versions:
        return Choice("mlx", "cpu", f"no GPU that an installed engine uses: {_cpu(found)}", hints)
    if vllm is not None and _for_cpu(vllm):
        return Choice("vllm", "cpu", f"vLLM's build for CPUs: {_cpu(found)}", hints)
    reason = "nothing that computes on this machine is installed: answers are not a model's"
    return Choice("echo", "cpu", reason, hints)


def _cpu(found: Hardware) -> str:
    vectors = f" with {found.cpu.vectors[-1]}" if found.cpu.vectors else ""
    return f"{found.cpu.usable:g} CPUs{vectors}"


def _hints(found: Hardware, versions: Mapping[str, str]) -> Iterator[str]:
    vllm = versions.get("vllm")
    for gpu in [*found.of("cuda"), *found.of("rocm")]:
        if not _suits(gpu):
            yield f"{gpu.name}: vLLM needs compute capability 7.0, this has {gpu.generation}"
        elif vllm is None:
            yield f"{gpu.name}: install vllm (the images -vllm) to use it"
        elif _for_cpu(vllm):
            yield f"{gpu.name}: the installed vllm is a build for CPUs"
    for gpu in found.of("metal"):
        if "mlx" not in versions:
            yield f"{gpu.name}: install mlx and mlx-lm to use its GPU"
    for other in [*found.of("openvino"), *found.of("qnn")]:
        yield f"{other.name}: no engine of this server computes on it"


def _suits(gpu: Accelerator) -> bool:
    if gpu.kind != "cuda" or not gpu.generation:
        return True  # nobody says otherwise
    major, _, minor = gpu.generation.partition(".")
    return (int(major), int(minor or 0)) >= _LEAST_CAPABILITY


def _for_cpu(version: str) -> bool:
    return "+cpu" in version
