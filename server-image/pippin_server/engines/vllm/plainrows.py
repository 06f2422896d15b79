"""Rows without an adapter beside rows with one, on a CPU.

vLLM marks such a row with the index -1. Its kernels for GPUs pass it over; its operations for CPUs
look it up, and -1 is the last adapter there is, so the row is answered by that.
"""

from __future__ import annotations

from typing import Any


def spare() -> None:
    """From now on nothing is added to them, in this process."""
    from vllm.lora.ops.torch_ops import lora_ops
    from vllm.lora.punica_wrapper import punica_cpu

    shrink = lora_ops.bgmv_shrink

    def of_adapted(x: Any, weights: Any, out: Any, indices: Any, scaling: float = 1.0) -> None:
        shrink(x, weights, out, indices, scaling)
        out *= (indices >= 0).to(out.dtype).unsqueeze(1)

    lora_ops.bgmv_shrink = punica_cpu.bgmv_shrink = of_adapted
