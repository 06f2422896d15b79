"""Whether a model fits into memory, from its files; and how near that is to what it takes."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
from safetensors.numpy import save_file

from pippin_contract.serverconfig import PromptCacheConfig
from pippin_server.engines.base import LoadFailed, Prompt, Sampling
from pippin_server.engines.mlx.args import Args
from pippin_server.engines.mlx.engine import MlxEngine
from pippin_server.engines.mlx.fit import PROGRAM, Fit, Fitting, Wish, estimate, settled
from pippin_server.engines.mlx.shape import Shape, read
from pippin_server.hardware.budget import Budget
from support import tinymodel

MIB, GIB = 2**20, 2**30
OFF = PromptCacheConfig(enabled=False)
CONTAINER = "the limit of this container is"


def model(path: Path, tensors: dict[str, Any], **config: Any) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    save_file(tensors, path / "model.safetensors")
    return path


LLAMA_8B = {
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 131072,
}  # fmt: skip
GEMMA3_TEXT = {
    "num_hidden_layers": 34, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
    "hidden_size": 2560, "sliding_window": 1024, "sliding_window_pattern": 6,
}  # fmt: skip
GPT_OSS = {
    "num_hidden_layers": 4, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64,
    "hidden_size": 2880, "sliding_window": 128,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}  # fmt: skip
DEEPSEEK = {
    "num_hidden_layers": 61, "num_attention_heads": 128, "num_key_value_heads": 128,
    "hidden_size": 7168, "kv_lora_rank": 512, "qk_rope_head_dim": 64,
}  # fmt: skip
QWEN3_NEXT = {
    "num_hidden_layers": 4, "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 256,
    "layer_types": ["linear_attention"] * 3 + ["full_attention"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "full", "window"),
    [
        (LLAMA_8B, 32 * 2 * 8 * 128, 0),
        ({"text_config": LLAMA_8B, "hidden_size": 1}, 32 * 2 * 8 * 128, 0),
        (GEMMA3_TEXT, 5 * 2 * 4 * 256, 29 * 2 * 4 * 256),
        (GPT_OSS, 2 * 2 * 8 * 64, 2 * 2 * 8 * 64),
        (DEEPSEEK, 61 * 576, 0),
        (QWEN3_NEXT, 2 * 2 * 256, 0),
        ({"n_layer": 12, "n_head": 12, "n_embd": 768}, 12 * 2 * 768, 0),
        ({"num_hidden_layers": 24, "hidden_size": 768, "state_size": 16}, 0, 0),
    ],
    ids=["llama", "nested", "gemma3", "gpt-oss", "deepseek", "qwen3-next", "gpt2", "mamba"],
)
def test_what_a_token_adds_to_the_state(
    tmp_path: Path, config: dict[str, Any], full: int, window: int
) -> None:
    found = read(model(tmp_path, {}, **config), "auto", on_cpu=False)
    assert (found.full, found.window) == (full, window)
    assert found.per_token == 2 * full


def test_layers_with_a_window_stop_growing(tmp_path: Path) -> None:
    found = read(model(tmp_path, {}, **GPT_OSS), "auto", on_cpu=False)
    assert found.state(1000) == 2 * (found.full * 1000 + found.window * 128)


@pytest.mark.parametrize(
    ("dtype", "on_cpu", "config", "width"),
    [
        ("auto", True, {}, 4),
        ("auto", False, {}, 2),
        ("float16", True, {}, 2),
        ("float32", False, {}, 4),
        ("auto", True, {"quantization": {"bits": 4}}, 2),
    ],
)
def test_weights_are_counted_as_they_will_be_in_memory(
    tmp_path: Path, dtype: Any, on_cpu: bool, config: dict[str, Any], width: int
) -> None:
    tensors = {"w": numpy.zeros((64, 32), numpy.float16), "q": numpy.zeros(8, numpy.uint32)}
    found = read(model(tmp_path, tensors, **config), dtype, on_cpu=on_cpu)
    assert found.weights == 64 * 32 * width + 32
    assert found.width == width


def test_files_that_say_nothing_are_not_judged_here(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 16)
    (tmp_path / "config.json").write_text("[")
    found = read(tmp_path, "auto", on_cpu=True)
    assert (found.weights, found.full, found.context) == (0, 0, 4096)


# --- sums: 8 GiB of weights, 1 MiB a token, no working memory

SIMPLE = Shape(
    weights=8 * GIB, quantised=False, width=2, full=MIB // 2, window=0, reach=0, heads=0,
    hidden=0, inner=0, context=8192,
)  # fmt: skip


def wish(**changes: Any) -> Wish:
    return replace(Wish(4096, 4, OFF, Args(), on_cpu=False), **changes)


def fit(room: int, shape: Shape = SIMPLE, **changes: Any) -> Fit:
    """`room`: what weights and program leave."""
    return estimate(shape, wish(**changes), Budget(8 * GIB + PROGRAM + room, CONTAINER))


def test_as_many_whole_requests_as_there_is_room_for() -> None:
    one = int(4 * GIB * 1.1)
    three = 3 * 4 * GIB * 3 // 2
    assert [fit(room).fits for room in (one - 1, one, three, 99 * one)] == [0, 1, 3, 4]
    assert fit(99 * one).warning is None and fit(99 * one).problem is None
    tight = fit(three - 1)
    assert tight.problem is None and tight.warning is not None
    assert "up to 4 requests run at once, and 2 fit with 4096 tokens each" in tight.warning
    assert tight.needed == PROGRAM + 8 * GIB + 4 * 4 * GIB * 3 // 2


def test_a_context_that_does_not_fit_is_refused_with_the_numbers_and_what_helps() -> None:
    told = fit(GIB).problem
    assert told is not None
    assert "8.0 GiB of weights, 256 MiB of program, " in told
    assert "4.4 GiB for one request with 4096 tokens" in told
    assert "12.6 GiB together, and the limit of this container is 9.2 GiB" in told
    assert "contextLength 768 or less" in told
    assert "weights quantised to 4 bits (about 2.2 GiB)" in told
    assert "12.7 GiB of memory (resources.limits.memory" in told
    assert "PIPPIN_SERVER_MEMORY_CHECK=warn" in told


def test_what_would_not_help_is_not_said() -> None:
    told = fit(-2 * GIB, replace(SIMPLE, quantised=True)).problem
    assert told is not None
    assert "contextLength" not in told and "quantised" not in told and "promptCache" not in told


def test_a_prompt_cache_that_takes_the_requests_room_is_named() -> None:
    told = fit(8 * GIB, prompt_cache=PromptCacheConfig(max_bytes=4 * GIB)).problem
    assert told is not None
    assert "4.0 GiB of prompt cache" in told and "promptCache.maxBytes 3.6 GiB or less" in told
    assert fit(9 * GIB, prompt_cache=PromptCacheConfig(max_bytes=4 * GIB)).fits == 1


@pytest.mark.parametrize(
    ("room", "cache"),
    [
        (4 * GIB * 11 // 10 + 64 * MIB, 64 * MIB),
        (8 * GIB, 8 * GIB // 8 + 32 * MIB),
        (99 * GIB, 2 * GIB),
    ],
)
def test_a_prompt_cache_of_no_told_size_leaves_room_for_a_request(room: int, cache: int) -> None:
    found = fit(room, prompt_cache=PromptCacheConfig())
    assert abs(found.cache - cache) <= 1 and found.fits >= 1


def test_a_context_that_nobody_asked_for_is_cut_to_what_fits() -> None:
    found = fit(6 * GIB, context=None)
    assert found.problem is None and found.warning is not None
    assert found.context == 5376 and "cut to 5376 tokens of the 8192" in found.warning
    assert fit(99 * GIB, context=None).context == 8192
    assert fit(2 * GIB, context=None).problem is not None, "too little to be of use"


def test_who_says_warn_is_only_warned() -> None:
    found = fit(GIB, strict=False)
    assert found.problem is None and found.context == 4096
    assert found.warning is not None and "12.6 GiB together" in found.warning
    assert fit(6 * GIB, context=None, strict=False).context == 8192


def test_without_a_known_limit_everything_fits() -> None:
    found = estimate(SIMPLE, wish(), Budget(0, "nobody says"))
    assert (found.problem, found.warning, found.fits, found.cache) == (None, None, 4, 0)


def test_reading_prompts_takes_memory_of_its_own() -> None:
    shape = replace(SIMPLE, heads=32, hidden=4096, inner=14336)
    on_gpu, on_cpu = fit(99 * GIB, shape), fit(99 * GIB, shape, on_cpu=True)
    assert on_gpu.needed - fit(99 * GIB).needed == 4 * 512 * (4 * 4096 + 3 * 14336) * 2
    assert on_cpu.needed - on_gpu.needed == 4 * 512 * 32 * 4096 * 2


def test_a_model_that_does_not_fit_is_not_loaded(tmp_path: Path) -> None:
    path = tinymodel.make(tmp_path / "tiny")
    small = Fitting(wish(context=None, on_cpu=True), Budget(200 * MIB, CONTAINER))
    with pytest.raises(LoadFailed) as refused:
        settled(small.of(path))
    assert (refused.value.reason, refused.value.permanent) == ("InsufficientMemory", True)
    assert "256 MiB of program" in refused.value.message


# --- against what a real load takes


@pytest.mark.timeout(240)
async def test_the_estimate_is_near_what_is_measured(tmp_path: Path) -> None:
    """Of a model that is little but keys and values."""
    import mlx.core as mx

    shape = tinymodel.Shape(layers=12, hidden=256, inter=64, heads=4, kv_heads=4, context=2048)
    path = tinymodel.make(tmp_path / "deep", shape)
    fitting = Fitting(wish(context=None, on_cpu=True), Budget(64 * GIB, "this machine has"))
    estimated = fitting.of(path)
    engine = MlxEngine(fitting, clock=time.monotonic)
    before = int(mx.get_active_memory())
    loaded = await engine.load(path, lambda *_: None)
    assert loaded.bytes == estimated.weights
    assert loaded.memory == estimated.payload()

    async def ask(number: int) -> None:
        prompt = Prompt(tokens=tuple((number + token) % 400 + 3 for token in range(500)))
        async for _ in engine.generate(prompt, Sampling(max_tokens=4, temperature=0)):
            pass

    for requests in (1, 4):
        mx.reset_peak_memory()
        await asyncio.gather(*(ask(number) for number in range(requests)))
        taken = int(mx.get_peak_memory()) - before
        asked = wish(context=504, sequences=requests, on_cpu=True)
        told = Fitting(asked, fitting.budget).of(path).needed - PROGRAM
        # What is the same for every model is reckoned as the program's.
        assert taken - 16 * MIB < told < 2 * taken, "never too little, and not far too much"
    await engine.close()
