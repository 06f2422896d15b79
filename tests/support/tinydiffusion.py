"""A Stable Diffusion with random weights that makes pictures of 64 by 64, in diffusers' layout.
Seeded."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
from safetensors.numpy import save_file
from tokenizers import pre_tokenizers

#: Tokens of a prompt, with those that begin and end it; pixels of a side.
POSITIONS, SIDE = 24, 64
_TEXT, _GROUPS, _TIMES = 16, 8, 8
_CHANNELS, _OF_VAE = (16, 32), (8, 8, 16, 16)
_MERGES = ("a n", "an d</w>", "t h", "th e</w>", "c a", "ca t</w>", "f o", "fo x</w>")

Config = dict[str, Any]


@dataclass
class Tensors:
    """Of one part, by diffusers' names."""

    numbers: numpy.random.Generator
    found: dict[str, Any] = field(default_factory=dict)

    def _normal(self, *shape: int, like: float) -> Any:
        return self.numbers.standard_normal(shape, dtype=numpy.float32) * numpy.float32(like)

    def linear(self, name: str, inputs: int, outputs: int, *, bias: bool = True) -> None:
        self.found[f"{name}.weight"] = self._normal(outputs, inputs, like=inputs**-0.5)
        if bias:
            self.found[f"{name}.bias"] = self._normal(outputs, like=0.1)

    def conv(self, name: str, inputs: int, outputs: int, kernel: int = 3) -> None:
        like = (inputs * kernel**2) ** -0.5
        shape = (outputs, inputs, kernel, kernel)
        self.found[f"{name}.weight"] = self._normal(*shape, like=like)
        self.found[f"{name}.bias"] = self._normal(outputs, like=0.1)

    def norm(self, name: str, size: int) -> None:
        self.found[f"{name}.weight"] = 1 + self._normal(size, like=0.2)
        self.found[f"{name}.bias"] = self._normal(size, like=0.2)

    def table(self, name: str, rows: int, size: int) -> None:
        self.found[f"{name}.weight"] = self._normal(rows, size, like=1.0)

    def resnet(self, name: str, inputs: int, outputs: int, times: int = 0) -> None:
        self.norm(f"{name}.norm1", inputs)
        self.conv(f"{name}.conv1", inputs, outputs)
        if times:
            self.linear(f"{name}.time_emb_proj", times, outputs)
        self.norm(f"{name}.norm2", outputs)
        self.conv(f"{name}.conv2", outputs, outputs)
        if inputs != outputs:
            self.conv(f"{name}.conv_shortcut", inputs, outputs, 1)


def make(into: Path, *, xl: bool = False, seed: int = 11, **scheduler: Any) -> Path:
    """Write all parts. `xl`: with two texts' encoders, as SDXL has them; `scheduler`: fields of its
    config that differ from SD 1.x's."""
    numbers = numpy.random.default_rng(seed)
    texts = {"text_encoder": False, **({"text_encoder_2": True} if xl else {})}
    kind = "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline"
    encoder = "CLIPTextModel"
    index: Config = {
        "_class_name": kind,
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", scheduler.get("_class_name", "EulerDiscreteScheduler")],
    }
    words = _vocabulary()
    for part, pooled in texts.items():
        suffix = part.removeprefix("text_encoder")
        encoder = "CLIPTextModelWithProjection" if pooled else "CLIPTextModel"
        index[part] = ["transformers", encoder]
        index[f"tokenizer{suffix}"] = ["transformers", "CLIPTokenizer"]
        _part(into / part, _text_config(words, pooled), _text(numbers, len(words), pooled), "model")
        _tokenizer(into / f"tokenizer{suffix}", words)
    if not xl:
        index.update(safety_checker=[None, None], feature_extractor=[None, None])
    diffusion = "diffusion_pytorch_model"
    _part(into / "unet", _unet_config(xl), _unet(numbers, xl), diffusion)
    _part(into / "vae", _vae_config(xl), _vae(numbers), diffusion)
    _write(into / "scheduler/scheduler_config.json", {**SCHEDULER, **scheduler})
    _write(into / "model_index.json", index)
    return into


SCHEDULER: Config = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


def _part(into: Path, config: Config, weights: dict[str, Any], name: str) -> None:
    _write(into / "config.json", config)
    save_file(weights, into / f"{name}.safetensors", metadata={"format": "pt"})


def _write(path: Path, told: Config) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told))


def _vocabulary() -> dict[str, int]:
    """Letters, letters that end a word, some words, and the two marks."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    ends = [f"{letter}</w>" for letter in letters]
    merged = [merge.replace(" ", "") for merge in _MERGES]
    marks = ["<|startoftext|>", "<|endoftext|>"]
    return {word: i for i, word in enumerate([*letters, *ends, *merged, *marks])}


def _tokenizer(into: Path, words: dict[str, int]) -> None:
    told = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": POSITIONS,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    _write(into / "tokenizer_config.json", told)
    _write(into / "vocab.json", words)
    (into / "merges.txt").write_text("\n".join(("#version: 0.2", *_MERGES, "")))


def _text_config(words: dict[str, int], pooled: bool) -> Config:
    return {
        "model_type": "clip_text_model",
        "architectures": ["CLIPTextModelWithProjection" if pooled else "CLIPTextModel"],
        "hidden_size": _TEXT,
        "intermediate_size": 4 * _TEXT,
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
        "max_position_embeddings": POSITIONS,
        "vocab_size": len(words),
        "hidden_act": "gelu" if pooled else "quick_gelu",
        "layer_norm_eps": 1e-5,
        "projection_dim": _TEXT,
        "bos_token_id": words["<|startoftext|>"],
        "eos_token_id": words["<|endoftext|>"],
        "pad_token_id": words["<|endoftext|>"],
    }


def _text(numbers: numpy.random.Generator, vocabulary: int, pooled: bool) -> dict[str, Any]:
    made = Tensors(numbers)
    made.table("text_model.embeddings.token_embedding", vocabulary, _TEXT)
    made.table("text_model.embeddings.position_embedding", POSITIONS, _TEXT)
    for number in range(3):
        layer = f"text_model.encoder.layers.{number}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            made.linear(f"{layer}.self_attn.{part}", _TEXT, _TEXT)
        made.norm(f"{layer}.layer_norm1", _TEXT)
        made.norm(f"{layer}.layer_norm2", _TEXT)
        made.linear(f"{layer}.mlp.fc1", _TEXT, 4 * _TEXT)
        made.linear(f"{layer}.mlp.fc2", 4 * _TEXT, _TEXT)
    made.norm("text_model.final_layer_norm", _TEXT)
    if pooled:
        made.linear("text_projection", _TEXT, _TEXT, bias=False)
    return made.found


def _unet_config(xl: bool) -> Config:
    """SD 1.x's, whose number of heads is called their size; or SDXL's, with linear projections."""
    told: Config = {
        "_class_name": "UNet2DConditionModel",
        "sample_size": SIDE // 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": list(_CHANNELS),
        "layers_per_block": 1,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "cross_attention_dim": _TEXT,
        "attention_head_dim": 2,
        "norm_num_groups": _GROUPS,
    }
    if not xl:
        return told
    return {
        **told,
        "cross_attention_dim": 2 * _TEXT,
        "attention_head_dim": [2, 4],
        "transformer_layers_per_block": [1, 2],
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": _TIMES,
        "projection_class_embeddings_input_dim": _TEXT + 6 * _TIMES,
    }


def _unet(numbers: numpy.random.Generator, xl: bool) -> dict[str, Any]:
    made = Tensors(numbers)
    (small, large), times = _CHANNELS, 4 * _CHANNELS[0]
    made.conv("conv_in", 4, small)
    made.linear("time_embedding.linear_1", small, times)
    made.linear("time_embedding.linear_2", times, times)
    if xl:
        made.linear("add_embedding.linear_1", _TEXT + 6 * _TIMES, times)
        made.linear("add_embedding.linear_2", times, times)
    made.resnet("down_blocks.0.resnets.0", small, small, times)
    _transformer(made, "down_blocks.0.attentions.0", small, xl, depth=1)
    made.conv("down_blocks.0.downsamplers.0.conv", small, small)
    made.resnet("down_blocks.1.resnets.0", small, large, times)
    made.resnet("mid_block.resnets.0", large, large, times)
    _transformer(made, "mid_block.attentions.0", large, xl, depth=2 if xl else 1)
    made.resnet("mid_block.resnets.1", large, large, times)
    made.resnet("up_blocks.0.resnets.0", large + large, large, times)
    made.resnet("up_blocks.0.resnets.1", large + small, large, times)
    made.conv("up_blocks.0.upsamplers.0.conv", large, large)
    made.resnet("up_blocks.1.resnets.0", large + small, small, times)
    made.resnet("up_blocks.1.resnets.1", small + small, small, times)
    for number in range(2):
        _transformer(made, f"up_blocks.1.attentions.{number}", small, xl, depth=1)
    made.norm("conv_norm_out", small)
    made.conv("conv_out", small, 4)
    return made.found


def _transformer(made: Tensors, name: str, size: int, xl: bool, *, depth: int) -> None:
    text = 2 * _TEXT if xl else _TEXT
    made.norm(f"{name}.norm", size)
    for end in ("proj_in", "proj_out"):
        if xl:
            made.linear(f"{name}.{end}", size, size)
        else:
            made.conv(f"{name}.{end}", size, size, 1)
    for number in range(depth):
        block = f"{name}.transformer_blocks.{number}"
        for attention, seen in (("attn1", size), ("attn2", text)):
            made.linear(f"{block}.{attention}.to_q", size, size, bias=False)
            made.linear(f"{block}.{attention}.to_k", seen, size, bias=False)
            made.linear(f"{block}.{attention}.to_v", seen, size, bias=False)
            made.linear(f"{block}.{attention}.to_out.0", size, size)
        for norm in ("norm1", "norm2", "norm3"):
            made.norm(f"{block}.{norm}", size)
        made.linear(f"{block}.ff.net.0.proj", size, 8 * size)
        made.linear(f"{block}.ff.net.2", 4 * size, size)


def _vae_config(xl: bool) -> Config:
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "block_out_channels": list(_OF_VAE),
        "layers_per_block": 1,
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "norm_num_groups": _GROUPS,
        "scaling_factor": 0.13025 if xl else 0.18215,
    }


def _vae(numbers: numpy.random.Generator) -> dict[str, Any]:
    made = Tensors(numbers)
    widths, last = _OF_VAE, _OF_VAE[-1]
    made.conv("encoder.conv_in", 3, widths[0])
    made.conv("decoder.conv_in", 4, last)
    made.conv("quant_conv", 8, 8, 1)
    made.conv("post_quant_conv", 4, 4, 1)
    for number, (before, size) in enumerate(zip((widths[0], *widths), widths, strict=False)):
        made.resnet(f"encoder.down_blocks.{number}.resnets.0", before, size)
        if number < 3:
            made.conv(f"encoder.down_blocks.{number}.downsamplers.0.conv", size, size)
    upwards = widths[::-1]
    for number, (before, size) in enumerate(zip((last, *upwards), upwards, strict=False)):
        made.resnet(f"decoder.up_blocks.{number}.resnets.0", before, size)
        made.resnet(f"decoder.up_blocks.{number}.resnets.1", size, size)
        if number < 3:
            made.conv(f"decoder.up_blocks.{number}.upsamplers.0.conv", size, size)
    for side, inner, out in (("encoder", last, 8), ("decoder", widths[0], 3)):
        made.resnet(f"{side}.mid_block.resnets.0", last, last)
        made.resnet(f"{side}.mid_block.resnets.1", last, last)
        attention = f"{side}.mid_block.attentions.0"
        made.norm(f"{attention}.group_norm", last)
        for part in ("to_q", "to_k", "to_v", "to_out.0"):
            made.linear(f"{attention}.{part}", last, last)
        made.norm(f"{side}.conv_norm_out", inner)
        made.conv(f"{side}.conv_out", inner, out)
    return made.found


@dataclass(frozen=True)
class Loop:
    """A whole picture's steps, as figures of them are recorded."""

    scheduler: Config
    steps: int = 6
    guidance: float = 7.5


_DDIM: Config = {"_class_name": "DDIMScheduler", "clip_sample": False}
_RENEWED: Config = {"_class_name": "EulerAncestralDiscreteScheduler"}
LOOPS = {
    "euler": Loop({}),
    "v": Loop({"prediction_type": "v_prediction"}),
    "trailing": Loop({"timestep_spacing": "trailing"}),
    "linspace": Loop({"timestep_spacing": "linspace", "beta_schedule": "linear"}),
    "ddim": Loop({**_DDIM, "set_alpha_to_one": False}),
    "ddim to the end": Loop({**_DDIM, "timestep_spacing": "trailing"}, steps=5),
    "renewed": Loop({**_RENEWED, "timestep_spacing": "trailing"}, steps=4, guidance=0.0),
}
PROMPT = "The cat and the fox, a häß 2!"


def wave(*shape: int, like: float = 1.0) -> Any:
    """Numbers that look random and are the same everywhere."""
    numbers = numpy.sin(numpy.arange(numpy.prod(shape)) * 0.7) * like
    return numbers.astype(numpy.float32).reshape(shape)


def few(numbers: Any) -> list[float]:
    """A dozen of many, from all over."""
    flat = numpy.asarray(numbers).reshape(-1)
    return [round(float(one), 6) for one in flat[:: max(1, flat.size // 12)][:12]]


def change(path: Path, part: str, **fields: Any) -> None:
    """Say something else in one of a model's files."""
    file = path / part
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
